"""Evaluation of a routed library: loss, and metrics of generated answers, task by task."""

import numpy as np

from modjax import arguments, metrics
from modjax.data.tasks import Tasks
from modjax.eval.answers import losses_and_answers
from modjax.eval.method import Method
from modjax.eval.sample import Sample, prepared
from modjax.eval.score import Score
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary
from modjax.generation import Request
from modjax.model import Model
from modjax.progress import progress_bar
from modjax.routing.base import Router


def evaluate(
    model: Model,
    tasks: Tasks,
    library: Library | PagedLibrary | None = None,
    router: Router | None = None,
    sample: Sample = Sample(),  # noqa: B008, frozen
    max_new_tokens: int = 64,
    batch: int = 32,
    progress: bool = True,
) -> dict[str, Score]:
    """Scores the base model, or a library with a router, on every task that the router covers: {task: score}.

    Most routers cover all tasks; the oracle covers only the tasks that its experts were trained on.

    Args:
      library: None is the base model; a library of one expert needs no router.
      sample: which examples are read, and how they are encoded.
      max_new_tokens: length at which answers are cut; greedy decoding.
      batch: number of examples computed at once if they share nothing; scores do not depend on it.
      progress: show a bar.

    Raises InputError where the library does not fit the model, a split is empty, or a prompt leaves no room for its
    answer in the model's context.
    """
    arguments.instance("model", model, Model)
    method, progress = Method("evaluated", library, router), arguments.flag("progress", progress)
    max_new_tokens = arguments.whole("max_new_tokens", max_new_tokens, least=1, most=model.config.reach - 1)
    batch = arguments.whole("batch", batch, least=1)
    chosen = prepared(model, method.covered(tasks), sample, max_new_tokens)
    encoded, request = [one.encoded for one in chosen], Request(max_new_tokens, batch=batch)
    given = (model, encoded, library, router, method.choices_of(chosen), request)
    with progress_bar(len(chosen), "answer", show=progress) as bar:
        nats_n, answers = losses_and_answers(*given, done=bar.update)
    values = {metrics.LOSS.name: nats_n, **_of_answers(answers, [one.example.answers for one in chosen])}
    targets_n = np.asarray([len(one.tokens) - one.n_prompt for one in encoded])
    return _by_task([one.task.name for one in chosen], values, targets_n)


def _of_answers(answers, accepted) -> dict[str, np.ndarray]:
    """{metric: float64[n]} of every metric of generated answers."""
    return {
        metric.name: np.asarray([metric.of_answer(*pair) for pair in zip(answers, accepted, strict=True)], np.float64)
        for metric in metrics.METRICS
        if metric.of_answer
    }


def _by_task(names, values, targets_n) -> dict[str, Score]:
    scores = {}
    for name in dict.fromkeys(names):
        at = np.flatnonzero(np.asarray(names) == name)
        scores[name] = Score({metric: values_n[at] for metric, values_n in values.items()}, targets_n[at])
    return scores
