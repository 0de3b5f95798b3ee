"""Methods compared on tasks: the same examples, whatever the method and the batch size."""

import dataclasses
import time
import zlib
from collections.abc import Sequence

import numpy as np

from modjax.data.tasks import Example, Task, Tasks
from modjax.data.tokenize import TooLong, encode
from modjax.errors import InputError
from modjax.eval.likelihood import target_loss
from modjax.eval.metrics import exact_match, rouge_l
from modjax.experts.library import Library
from modjax.model import Model
from modjax.routing.base import Router
from modjax.routing.oracle import Oracle


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to answer: the base model, or a library under a router."""

    name: str
    library: Library | None = None
    router: Router | None = None
    note: str = ""

    def expert_of(self, task: Task) -> int | None:
        """The expert that the oracle gives a task; None where no expert was trained on it."""
        return self.library.expert_of(task.name) if self.library else None

    def covers(self, task: Task) -> bool:
        """Whether the method says anything of a task: the oracle knows only its experts' own."""
        return not isinstance(self.router, Oracle) or self.expert_of(task) is not None


@dataclasses.dataclass(frozen=True)
class Score:
    """One method on one task."""

    loss: float  # nats a target token, over all target tokens of the sample
    exact_match: float  # fraction of answers equal to an accepted one
    rouge_l: float  # mean F-measure, 0 to 1
    examples: int


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
    chosen = [(task, sample(task, split, examples, seed)) for task in tasks.values() if method.covers(task)]
    room = model.config.context - max_new_tokens
    length = min(length, room) if too_long == "truncate" else length
    encoded = [one for task, own in chosen for one in encode(model.tokenizer, task, own, length, system, too_long)]
    chosen = [(task, example) for task, own in chosen for example in own]
    _check_room(chosen, encoded, room)
    ids = [method.expert_of(task) for task, _ in chosen] if isinstance(method.router, Oracle) else None
    experts = model.experts(method.library, method.router)
    totals, counts = target_loss(model, encoded, experts, ids, batch)
    answers = model.generate(
        [one.tokens[: one.n_prompt] for one in encoded],
        method.library,
        method.router,
        max_new_tokens=max_new_tokens,
        batch=batch,
        experts=ids,
        progress=progress,
    )
    names = np.asarray([task.name for task, _ in chosen])
    scores = {
        name: _score(np.flatnonzero(names == name), chosen, totals, counts, answers) for name in dict.fromkeys(names)
    }
    return scores, time.perf_counter() - start


def _check_room(chosen, encoded, room):
    """Before anything is computed: every prompt leaves room for its answer."""
    for (task, _), one in zip(chosen, encoded, strict=True):
        if one.n_prompt > room:
            raise InputError(
                f"task {task.name!r}: a prompt has {one.n_prompt} tokens; expected at most {room}, the model's context "
                'less max_new_tokens. Give a smaller max_new_tokens, or too_long="truncate"'
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


def summary(scores: dict[str, Score], names: Sequence[str]) -> dict[str, float] | None:
    """Unweighted means over the named tasks; None unless all of them were scored."""
    if not names or any(name not in scores for name in names):
        return None
    own = [scores[name] for name in names]
    fields = ("loss", "exact_match", "rouge_l")
    means = {field: float(np.mean([getattr(score, field) for score in own])) for field in fields}
    return means | {"examples": sum(score.examples for score in own)}


def _score(ids, chosen, totals, counts, answers) -> Score:
    pairs = [(answers[i], chosen[i][1].answers) for i in ids]
    return Score(
        loss=float(totals[ids].sum() / counts[ids].sum()),
        exact_match=float(np.mean([exact_match(*pair) for pair in pairs])),
        rouge_l=float(np.mean([rouge_l(*pair) for pair in pairs])),
        examples=len(ids),
    )
