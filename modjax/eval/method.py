"""A method to be evaluated: the base model, or a library with a router."""

import dataclasses
from collections.abc import Sequence

from modjax import arguments
from modjax.data.tasks import Task, Tasks, checked_tasks
from modjax.errors import InputError
from modjax.eval.sample import Chosen
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary
from modjax.routing.base import Router


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to answer: the base model, or a library with a router."""

    name: str
    library: Library | PagedLibrary | None = None
    router: Router | None = None
    note: str = ""

    def __post_init__(self):
        arguments.check_fields(self, ("name", "note"), arguments.text)
        arguments.check_fields(self, ("library",), arguments.optional(arguments.instance), Library | PagedLibrary)
        arguments.check_fields(self, ("router",), arguments.optional(arguments.instance), Router)

    @property
    def loaded(self) -> Library | None:
        """The library, for what looks at all experts at once. Raises InputError for a paged one."""
        if isinstance(self.library, PagedLibrary):
            raise InputError(f"method {self.name!r} has a paged library; expected one in memory, such as paged[names]")
        return self.library

    @property
    def needs_choice(self) -> bool:
        """Whether the router needs a choice for each example, as the oracle needs its expert."""
        return self.library is not None and bool(self.router and self.router.choices(self.library))

    def choice_of(self, task: Task) -> int | None:
        """The index, among the router's choices, of a task's examples; None where the router has no choice for them."""
        return self.router.choice_of(task.name, self.library) if self.needs_choice else None

    def choices_of(self, chosen: Sequence[Chosen]) -> list[int | None] | None:
        """The choice of each example; None for a router that needs none."""
        return [self.choice_of(one.task) for one in chosen] if self.needs_choice else None

    def covers(self, task: Task) -> bool:
        """Whether the method can answer a task: the oracle covers only the tasks of its experts."""
        return not self.needs_choice or self.choice_of(task) is not None

    def covered(self, tasks: Tasks) -> Tasks:
        """The tasks that the method covers."""
        return Tasks(filter(self.covers, checked_tasks(tasks).values()))

    def expert_of(self, task: Task) -> int | None:
        """Index of the one expert that was trained on a task; None for none or several, as with Poly's skills."""
        experts = self.loaded.experts_of(task.name) if self.library else ()
        return experts[0] if len(experts) == 1 else None
