"""Methods compared on tasks: the same examples, whatever the method and the batch size."""

import dataclasses
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from modjax.data.tasks import Example, Task, Tasks
from modjax.data.tokenize import Encoded, TooLong, encode
from modjax.errors import InputError
from modjax.eval.likelihood import target_loss
from modjax.eval.metrics import exact_match, rouge_l
from modjax.eval.score import Score
from modjax.experts.library import Library
from modjax.model import Model
from modjax.routing.base import Router


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to answer: the base model, or a library under a router."""

    name: str
    library: Library | None = None
    router: Router | None = None
    note: str = ""

    @property
    def told(self) -> bool:
        """Whether the router goes by the task of an example, and has to be told."""
        return bool(self.router and self.router.choices(self.library))

    def id_of(self, task: Task) -> int | None:
        """What a router that is told gets for a task's examples; None where it has nothing to say of them."""
        return self.router.choice_of(task.name, self.library) if self.told else None

    def expert_of(self, task: Task) -> int | None:
        """The one expert that was trained on a task; None where there is none, or several, as skills are."""
        experts = self.library.experts_of(task.name) if self.library else ()
        return experts[0] if len(experts) == 1 else None

    def covers(self, task: Task) -> bool:
        """Whether the method says anything of a task: the oracle knows only its experts' own."""
        return not self.told or self.id_of(task) is not None


def evaluate(
    model: Model,
    method: Method,
    tasks: Tasks,
    examples: int = 100,
    split: str = "test",
    seed: int = 0,
    length: int = 2048,
    max_new_tokens: int = 64,
    batch: int = 32,
    system: str | None = None,
    too_long: TooLong = "error",
    progress: bool = True,
) -> tuple[dict[str, Score], float]:
    """Scores a method on every task it covers, and the seconds that took, compilation included.

    Args:
      examples: at most so many of each task, chosen by `seed` and index alone; 0 is all, without an order.
      length: prompts and targets together may have so many tokens.
      max_new_tokens: answers are cut there.
      batch: rows side by side; no score depends on it.
    """
    start = time.perf_counter()
    room = model.config.context - max_new_tokens
    length = min(length, room) if too_long == "truncate" else length
    chosen = list(prepared(model, method, tasks, examples, split, seed, length, system, too_long))
    encoded = [one.encoded for one in chosen]
    check_room(chosen, room)
    ids = told(method, chosen)
    totals, counts = target_loss(model, encoded, model.bind(method.library, method.router), ids, batch)
    answers = model.generate(
        [one.tokens[: one.n_prompt] for one in encoded],
        method.library,
        method.router,
        max_new_tokens=max_new_tokens,
        batch=batch,
        choices=ids,
        progress=progress,
    )
    names = np.asarray([one.task.name for one in chosen])
    scores = {
        name: _score(np.flatnonzero(names == name), chosen, totals, counts, answers) for name in dict.fromkeys(names)
    }
    return scores, time.perf_counter() - start


class Chosen(NamedTuple):
    """One example of a sample, ready to be read."""

    task: Task
    example: Example
    encoded: Encoded


def prepared(
    model: Model,
    method: Method,
    tasks: Tasks,
    examples: int = 100,
    split: str = "test",
    seed: int = 0,
    length: int = 2048,
    system: str | None = None,
    too_long: TooLong = "error",
) -> Iterator[Chosen]:
    """The sample of every task that the method covers; the arguments are those of `evaluate`."""
    for task in filter(method.covers, tasks.values()):
        own = sample(task, split, examples, seed)
        encoded = encode(model.tokenizer, task, own, length, system, too_long)
        yield from map(Chosen, [task] * len(own), own, encoded)


def told(method: Method, chosen: Sequence[Chosen]) -> list[int | None] | None:
    """What the method's router is told of each example; None for a router that is told nothing."""
    return [method.id_of(one.task) for one in chosen] if method.told else None


def check_room(chosen: Sequence[Chosen], room: int) -> None:
    """Raises InputError for a prompt that leaves no room for its answer, before anything is computed."""
    for task, _, encoded in chosen:
        if encoded.n_prompt > room:
            raise InputError(
                f"task {task.name!r}: a prompt has {encoded.n_prompt} tokens; expected at most {room}, the model's "
                'context less max_new_tokens. Give a smaller max_new_tokens, or too_long="truncate"'
            )


def sample(task: Task, split: str, count: int, seed: int) -> tuple[Example, ...]:
    """At most `count` examples of a split, the same for every method, batch size and machine."""
    examples = task.split(split)
    if not examples:
        raise InputError(f"task {task.name!r} has no examples in split {split!r}; expected at least one")
    if not 0 < count < len(examples):
        return examples
    order = np.random.RandomState(zlib.crc32(f"{seed}:{task.name}".encode())).permutation(len(examples))
    return tuple(examples[i] for i in sorted(order[:count]))


def _score(ids, chosen, totals, counts, answers) -> Score:
    pairs = [(answers[i], chosen[i].example.answers) for i in ids]
    return Score(
        nats_n=totals[ids],
        targets_n=counts[ids],
        exact_n=np.asarray([exact_match(*pair) for pair in pairs]),
        rouge_n=np.asarray([rouge_l(*pair) for pair in pairs]),
    )
