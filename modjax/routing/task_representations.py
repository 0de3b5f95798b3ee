"""LoRAuter routing (arXiv 2601.21795): the experts of the tasks whose examples are most similar to the prompt."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import whole
from modjax.data.tasks import Tasks
from modjax.experts.library import Library
from modjax.ops.kmeans import kmeans
from modjax.ops.lora import Mix
from modjax.ops.norms import unit
from modjax.ops.top_k import dense
from modjax.parallel.distributed import gather
from modjax.routing.base import BaseModel, checked_mix, named, static
from modjax.routing.embedding import EmbeddingRouter, example_embeddings
from modjax.routing.examples import known_tasks
from modjax.routing.top_k import checked_temperature, checked_top_k, top_k_softmax

RESTARTS = 10  # of k-means


class TaskRepresentations(EmbeddingRouter):
    tasks: jax.Array = named("KMD")  # float32, M unit vectors per task
    centre: jax.Array = named("D")  # float32, subtracted from every embedding
    experts: jax.Array = named("KE")  # float32, weights of each task's experts, summing to 1
    top_k: int = static(3)
    temperature: float = static(0.1)
    mix: Mix = static("outputs")

    def weigh_described(self, described_BX):
        query_BD = unit(described_BX - self.centre[None])
        similarity_BK = jnp.einsum("bd,kmd->bkm", query_BD, self.tasks).max(axis=-1)
        weights_BK = dense(top_k_softmax(similarity_BK, self.top_k, self.temperature), len(self.tasks))
        return jnp.einsum("bk,ke->be", weights_BK, self.experts)


def task_representations(
    library: Library,
    model: BaseModel,
    tasks: Tasks,
    examples: int = 16,
    split: str = "validation",
    centroids: int = 1,
    top_k: int = 3,
    temperature: float = 0.1,
    mix: Mix = "outputs",
    system: str | None = None,
    batch: int = 16,
    failed: bool = False,
) -> TaskRepresentations:
    """A router of whole prompts from the prompts of a few examples of each task.

        t_k = mean embedding of task k's prompts - c,  q = embedding of the prompt - c,  c the mean over tasks
        weights = sum over the top k tasks of softmax(cos(q, t_k) / temperature), divided equally among a task's experts

    An embedding is the mean of the base model's last hidden states over a prompt's tokens; the paper uses a sentence
    encoder. Hidden states share a large common component, so the mean over tasks is subtracted.

    With several centroids, as ARIADNE (arXiv 2606.19079) has, a task is represented by those of k-means on its prompts'
    embeddings, and its cosine is that of the nearest. ARIADNE takes the nearest task's expert alone, top_k=1.

    Args:
      tasks: only those that an expert was trained on are used; see `library.tasks`.
      examples: the number of examples per task, the first of the split.
      centroids: vectors per task, M; at most as many as there are examples.
      top_k: tasks kept per prompt; -1, or more than there are, keeps all.
      temperature: of the softmax over tasks, positive.
      system: as in `Model.generate`.
      batch: prompts per batch; it changes results only by rounding.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError if no task has an expert, and for a task without examples in the split.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    names, experts_KE = known_tasks(library, tasks, failed)
    embedded = example_embeddings(model, tasks.select(names), examples, split, system, batch)
    centre_D = np.mean([own_nD.mean(axis=0) for own_nD in embedded.values()], axis=0)
    wanted = whole("centroids", centroids, least=1)
    own_KMD = _padded([_centroids(own_nD - centre_D[None], wanted) for own_nD in embedded.values()])
    arrays = map(jnp.float32, (unit(own_KMD), centre_D, experts_KE))
    return TaskRepresentations(*arrays, top_k, temperature, mix)


def _centroids(x_nD: np.ndarray, wanted: int) -> np.ndarray:
    """float64[M,D], the means of at most as many groups of k-means."""
    if wanted == 1 or len(x_nD) == 1:
        return x_nD.mean(axis=0, keepdims=True)
    found = kmeans(jnp.float32(unit(x_nD)), min(wanted, len(x_nD)), jax.random.key(0), restarts=RESTARTS)
    labels_n = gather(found.labels)
    return np.stack([x_nD[labels_n == label].mean(axis=0) for label in np.unique(labels_n)])


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    """[K,M,D]: the first centroid of a task again in place of those that it lacks."""
    most = max(map(len, parts))
    return np.stack([np.concatenate([own, np.repeat(own[:1], most - len(own), axis=0)]) for own in parts])
