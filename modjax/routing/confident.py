"""Confident routing: the expert of the nearest task if the prompt is near enough, else a fallback.

Routers of whole prompts find the right expert of a known task nearly always, and are as sure of one where no expert
fits. Here a prompt is compared with the tasks twice: which is nearest, and whether it is nearer than prompts of other
tasks are; see `modjax.routing.task_space`. With a fallback of one expert, one expert alone decodes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import flag, instance, number, text, whole
from modjax.data.tasks import Tasks
from modjax.errors import InputError, suggestion
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.top_k import TopK
from modjax.routing.base import BaseModel, checked_mix, named, static
from modjax.routing.embedding import EmbeddingRouter, example_embeddings
from modjax.routing.examples import known_tasks
from modjax.routing.task_space import TaskSpace, described, threshold

ALWAYS = float(np.finfo(np.float32).max)  # a threshold that every distance is below


class Confident(EmbeddingRouter):
    centre: jax.Array = named("X")  # float32, X = 2 D; of the space of tasks, as the next three
    projection: jax.Array = named("XP")  # float32
    tasks: jax.Array = named("KP")  # float32
    radii: jax.Array = named("K")  # float32
    experts: jax.Array = named("KE")  # float32, weights of each task's experts, summing to 1
    otherwise: jax.Array = named("E")  # float32, the weights of the fallback
    threshold: float = static()  # the distance to the nearest task below which it is taken
    at_most: int = static()  # experts with a weight
    mix: Mix = static("outputs")
    many_alike = True  # those of a task's experts, or of the fallback
    describe = staticmethod(described)

    def weigh_described(self, described_BX):
        space = TaskSpace(self.centre, self.projection, self.tasks, self.radii)
        task_B, distance_B = space.nearest(described_BX)
        known_B1 = (distance_B < self.threshold)[:, None]
        weights_BE = jnp.where(known_B1, self.experts[task_B], self.otherwise[None])
        if self.at_most >= weights_BE.shape[1]:
            return weights_BE
        kept_Bk, ids_Bk = jax.lax.top_k(weights_BE, self.at_most)
        return TopK(ids_Bk, kept_Bk)


def confident(
    library: Library,
    model: BaseModel,
    tasks: Tasks,
    otherwise: str = "uniform",
    false_positives: float = 0.05,
    examples: int = 16,
    directions: int = 256,
    shrinkage: float = 0.5,
    mix: Mix = "outputs",
    system: str | None = None,
    batch: int = 16,
    failed: bool = False,
) -> Confident:
    """A router of whole prompts that knows when no expert fits; its decoding computes no scores.

        u = [mean of the last hidden states; the last of them],   q = unit(W^T (u - c)),   k = argmax q . t
        weights = those of task k's experts if (1 - q . t_k) / r_k < threshold, else those of the fallback

    W weighs down the directions in which prompts of one task differ; t_k is the q of the mean of a task's prompts, and
    r_k how far they are from it; see `modjax.routing.task_space.TaskSpace`. The threshold is a quantile of these
    distances over prompts of tasks that were left out of the space. No gradient is taken.

    Args:
      tasks: only those that an expert was trained on are used; see `library.tasks`. Experts of the same task have
        equal weights.
      otherwise: the fallback: "uniform", the mean of all experts; "base"; or the name of an expert, such as one of all
        tasks or a merge, which then answers for no task of its own.
      false_positives: the share of prompts of new tasks that may be taken for those of a known one, from 0 to 1.
      examples: prompts per task, the first of its training split.
      directions: the width of W, at most; fewer prompts give fewer.
      shrinkage: g, from 0 to 1; 1 leaves all directions alike.
      system: as in `Model.generate`.
      batch: prompts per batch; it changes results only by rounding.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    If one task alone has an expert, there is nothing to leave out, and that expert is always taken. Raises InputError
    if no task has an expert, for a task without training examples, and for an unknown fallback.
    """
    mix = checked_mix(mix)
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
    at_most = int(max((experts_KE > 0).sum(axis=1).max(), (fallback_E > 0).sum(), 1))
    return Confident(*space, jnp.float32(experts_KE), jnp.float32(fallback_E), least, min(at_most, len(library)), mix)


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
