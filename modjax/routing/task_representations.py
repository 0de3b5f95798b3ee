"""LoRAuter routing (arXiv 2601.21795): the experts of the tasks whose examples are most similar to the prompt."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tasks import Tasks
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.norms import unit
from modjax.ops.top_k import dense
from modjax.routing.base import BaseModel, checked_mix, named, static
from modjax.routing.embedding import embedding, task_embeddings
from modjax.routing.examples import known_tasks
from modjax.routing.prompt import PromptRouter
from modjax.routing.top_k import checked_temperature, checked_top_k, top_k_softmax


class TaskRepresentations(PromptRouter):
    tasks: jax.Array = named("KD")  # float32, one unit vector per task
    centre: jax.Array = named("D")  # float32, subtracted from every embedding
    experts: jax.Array = named("KE")  # float32, weights of each task's experts, summing to 1
    top_k: int = static(3)
    temperature: float = static(0.1)
    mix: Mix = static("outputs")

    def weigh(self, decoder, loras, rows):
        query_BD = unit(embedding(decoder, rows) - self.centre[None])
        similarity_BK = jnp.einsum("bd,kd->bk", query_BD, self.tasks)
        weights_BK = dense(top_k_softmax(similarity_BK, self.top_k, self.temperature), len(self.tasks))
        return jnp.einsum("bk,ke->be", weights_BK, self.experts)


def task_representations(
    library: Library,
    model: BaseModel,
    tasks: Tasks,
    examples: int = 16,
    split: str = "validation",
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

    Args:
      tasks: only those that an expert was trained on are used; see `library.tasks`.
      examples: the number of examples per task, the first of the split.
      top_k: tasks kept per prompt; -1, or more than there are, keeps all.
      temperature: of the softmax over tasks, positive.
      system: as in `Model.generate`.
      batch: prompts per batch; it changes results only by rounding.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError if no task has an expert, and for a task without examples in the split.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    names, experts_KE = known_tasks(library, tasks, failed)
    task_KD = np.stack(list(task_embeddings(model, tasks.select(names), examples, split, system, batch).values()))
    centre_D = task_KD.mean(axis=0)
    unit_KD = unit(jnp.float32(task_KD - centre_D[None]))
    return TaskRepresentations(unit_KD, jnp.float32(centre_D), jnp.asarray(experts_KE), top_k, temperature, mix)
