"""What a study compares, and on which tasks: all that its results depend on."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from modjax import arguments
from modjax.data.tasks import Tasks, checked_tasks
from modjax.errors import InputError
from modjax.eval.sample import Sample
from modjax.model import Model
from modjax.studies import methods
from modjax.train.settings import Settings

Line = Mapping[str, Any]  # a method, see modjax.studies.methods


@dataclasses.dataclass(frozen=True)
class Study:
    """All that a study's results depend on.

    Attributes:
      tasks: those to train on, and held-out ones; held_out: names of more that are kept out of training.
      lines: {method: its line, or a list of lines of which the best on the development tasks is taken}. A line's
        "library" is a kind of `modjax.studies.libraries`.
      development: the tasks, trained on and held out, by which settings are chosen; they are not reported.
      settings: of the private library, without its seed; see `modjax.train.settings.Settings`.
      cluster, rows, clustering: as in `modjax.studies.libraries.Libraries`.
      sample, max_new_tokens: of the reported scores, as in `modjax.evaluate`.
      tuning: examples of each development task.
      adapt: the options of adaptation, see `modjax.studies.adaptation`; adapted: settings of its training that differ.
      pairs: pairs of the transfer study, with the first seed; 0: none.
      benchmarks: arguments of `modjax.studies.benchmarks`, as data and names, besides experiment and method; {}: none.
    """

    model: Model
    tasks: Tasks
    lines: Mapping[str, Line | Sequence[Line]]
    settings: Mapping[str, Any]
    cluster: Mapping[str, Any]
    held_out: Sequence[str] = ()
    development: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    clustering: float = 0.4
    sample: Sample = Sample()  # noqa: RUF009, frozen
    max_new_tokens: int = 64
    tuning: int = 8
    adapt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adapted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pairs: int = 0
    benchmarks: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        arguments.check_fields(self, ("model",), arguments.instance, Model)
        arguments.check_fields(self, ("sample",), arguments.instance, Sample)
        arguments.check_fields(self, ("max_new_tokens", "tuning"), arguments.whole, least=1)
        arguments.check_fields(self, ("pairs",), arguments.whole, least=0)
        arguments.check_fields(self, ("clustering",), arguments.number, least=0, below=1)
        for name in ("lines", "settings", "cluster", "rows", "adapt", "adapted", "benchmarks"):
            arguments.check_fields(self, (name,), arguments.mapping, "a dictionary")
        arguments.made(Settings, dict(self.settings))
        seeds = arguments.items("seeds", self.seeds, "a list of seeds")
        tasks = checked_tasks(self.tasks)
        kept_out = {
            name: dataclasses.replace(task, held_out=True) for name, task in tasks.select(self.held_out).items()
        }
        made = {
            "seeds": tuple(arguments.seed("an item of seeds", seed) for seed in seeds),
            "tasks": Tasks({**tasks, **kept_out}.values()),
            "development": tuple(tasks.select(self.development)),
            "lines": {name: _alternatives(name, line) for name, line in self.lines.items()},
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        choosing = [name for name, own in self.lines.items() if len(own) > 1]
        if choosing and not self.development:
            raise InputError(f"lines[{choosing[0]!r}] is a list: expected development tasks, to choose by")
        if not (self.seeds and self.lines):
            raise InputError(f"{len(self.seeds)} seeds and {len(self.lines)} lines: expected at least one of each")

    @functools.cached_property
    def reported(self) -> Tasks:
        """The tasks that no setting was chosen by."""
        return Tasks(task for name, task in self.tasks.items() if name not in self.development)

    @functools.cached_property
    def developed(self) -> Tasks:
        """The tasks that settings are chosen by."""
        return self.tasks.select(self.development)

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """The libraries that the lines name."""
        return tuple(sorted({line["library"] for own in self.lines.values() for line in own} - {""}))


def _alternatives(name, line) -> list[dict[str, Any]]:
    """The lines of a method, normalised."""
    where = f"lines[{arguments.title('method name', name)!r}]"
    lines = [line] if isinstance(line, Mapping) else arguments.items(where, line, "a method, or a list of methods")
    found = [methods.normalised(one, where) for one in lines]
    if not found or any("library" not in one for one in found):
        raise InputError(f"{where}: expected at least one method, each with a library")
    return found
