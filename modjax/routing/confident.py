"""Confident routing: the expert of the nearest task if the prompt is near enough, else a fallback.

Routers of whole prompts find the right expert of a known task nearly always, and are as sure of one where no expert
fits. Here a prompt is compared with the tasks twice: which is nearest, and whether it is nearer than prompts of other
tasks are; see `modjax.routing.task_space`. With top_k=1, and a fallback of one expert, one expert alone decodes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import flag, instance, number, text, whole
from modjax.data.tasks import Tasks
from modjax.errors import InputError, suggestion
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.norms import unit
from modjax.ops.top_k import TopK, dense
from modjax.routing.base import BaseModel, checked_mix, named, static
from modjax.routing.embedding import example_embeddings
from modjax.routing.examples import known_tasks
from modjax.routing.prompt import PromptRouter
from modjax.routing.task_space import TaskSpace, described, threshold
from modjax.routing.top_k import checked_temperature, checked_top_k, top_k_softmax

ALWAYS = -2.0  # a threshold that every cosine is above


class Confident(PromptRouter):
    centre: jax.Array = named("X")  # float32, X = 2 D; subtracted from descriptions
    projection: jax.Array = named("XP")  # float32, onto P directions in which tasks differ
    tasks: jax.Array = named("KP")  # float32, one unit vector per task
    experts: jax.Array = named("KE")  # float32, weights of each task's experts, summing to 1
    otherwise: jax.Array = named("E")  # float32, the weights of the fallback
    threshold: float = static()  # the similarity to the nearest task above which it is taken
    at_most: int = static()  # experts with a weight
    top_k: int = static(1)
    temperature: float = static(0.1)
    mix: Mix = static("outputs")

    def weigh(self, decoder, loras, rows):
        query_BP = unit((described(decoder, rows) - self.centre[None]) @ self.projection)
        similarity_BK = query_BP @ self.tasks.T
        known_B1 = similarity_BK.max(axis=1, keepdims=True) > self.threshold
        own_BK = dense(top_k_softmax(similarity_BK, self.top_k, self.temperature), len(self.tasks))
        weights_BE = jnp.where(known_B1, own_BK @ self.experts, self.otherwise[None])
        if self.at_most >= weights_BE.shape[1]:
            return weights_BE
        kept_Bk, ids_Bk = jax.lax.top_k(weights_BE, self.at_most)
        return TopK(ids_Bk, kept_Bk)


def confident(
    library: Library,
    model: BaseModel,
    tasks: Tasks,
    otherwise: str = "uniform",
    false_positives: float = 0.02,
    examples: int = 16,
    directions: int = 256,
    shrinkage: float = 0.5,
    top_k: int = 1,
    temperature: float = 0.1,
    mix: Mix = "outputs",
    system: str | None = None,
    batch: int = 16,
    failed: bool = False,
) -> Confident:
    """A router of whole prompts that knows when no expert fits; its decoding computes no scores.

        u = [mean of the last hidden states; the last of them] - c,   q = unit(W u),   t_k = unit(W (mean u of task k))
        W = the inverse square root of (1 - g) S + g tr(S) / P I, in the first P principal directions of u
        weights = softmax(q . t / temperature, top k tasks) if max_k q . t_k > threshold, else those of the fallback

    S is the covariance of u within tasks. The threshold is a quantile of max_k q . t_k over prompts of tasks that were
    left out of the space. No gradient is taken.

    Args:
      tasks: only those that an expert was trained on are used; see `library.tasks`.
      otherwise: the fallback: "uniform", the mean of all experts; "base"; or the name of an expert, such as one of all
        tasks or a merge, which then answers for no task of its own.
      false_positives: the share of prompts of new tasks that may be taken for those of a known one, from 0 to 1.
      examples: prompts per task, the first of its training split.
      directions: P, at most; fewer prompts give fewer.
      shrinkage: g, from 0 to 1; 1 leaves all directions alike.
      top_k: tasks kept per prompt; -1, or more than there are, keeps all.
      temperature: of the softmax over tasks, positive.
      system: as in `Model.generate`.
      batch: prompts per batch; it changes results only by rounding.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    If one task alone has an expert, there is nothing to leave out, and that expert is always taken. Raises InputError
    if no task has an expert, for a task without training examples, and for an unknown fallback.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    false_positives = number("false_positives", false_positives, least=0, most=1)
    examples, directions = whole("examples", examples, least=1), whole("directions", directions, least=1)
    shrinkage = number("shrinkage", shrinkage, above=0, most=1)
    fallback_E = _fallback(library, otherwise, flag("failed", failed))
    own = [name for name in library.names if name != otherwise]
    names, found_KE = known_tasks(library[own], tasks, failed)
    experts_KE = np.zeros((len(names), len(library)), np.float32)
    experts_KE[:, [library.names.index(name) for name in own]] = found_KE
    read = example_embeddings(model, tasks.select(names), examples, "train", system, batch, described)
    known = list(read.values())
    space = TaskSpace.of(known, directions, shrinkage)
    least = threshold(known, directions, shrinkage, false_positives) if len(names) > 1 else ALWAYS
    kept = min(top_k, len(names)) if top_k > 0 else len(names)
    at_most = int(max(kept * (experts_KE > 0).sum(axis=1).max(), (fallback_E > 0).sum(), 1))
    arrays = (*space, experts_KE, fallback_E)
    settings = (least, min(at_most, len(library)), top_k, temperature, mix)
    return Confident(*map(jnp.float32, arrays), *settings)


def _fallback(library: Library, otherwise: str, failed: bool) -> np.ndarray:
    """float32[E], the weights of the fallback."""
    found_E = np.zeros(len(instance("library", library, Library)), np.float32)
    if text("otherwise", otherwise) in library.names:
        found_E[library.names.index(otherwise)] = 1
    elif otherwise == "uniform":
        kept = [e for e, info in enumerate(library.infos) if failed or not info.failed]
        found_E[kept] = 1 / len(kept)
    elif otherwise != "base":
        raise InputError(f"otherwise={otherwise!r}: {suggestion(otherwise, ['uniform', 'base', *library.names])}")
    return found_E
