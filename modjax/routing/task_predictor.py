"""Task prediction, TP (arXiv 2405.11157, section 4.2): a classifier predicts the task of a prompt."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import number
from modjax.data.tasks import Tasks
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.base import BaseModel, checked_mix, named, static
from modjax.routing.embedding import EmbeddingRouter, embed
from modjax.routing.examples import first_of, known_tasks
from modjax.routing.top_k import checked_top_k, top_k_shares


class TaskPredictor(EmbeddingRouter):
    directions: jax.Array = named("KD")  # float32, one per task
    offsets: jax.Array = named("K")  # float32
    experts: jax.Array = named("KE")  # float32, weights of each task's experts, summing to 1
    top_k: int = static(1)
    mix: Mix = static("outputs")

    def weigh_described(self, described_BX):
        score_BK = jnp.einsum("bd,kd->bk", described_BX, self.directions) + self.offsets[None]
        return top_k_shares(jnp.einsum("bk,ke->be", jax.nn.softmax(score_BK), self.experts), self.top_k)


def task_predictor(
    library: Library,
    model: BaseModel,
    tasks: Tasks,
    examples: int = 64,
    split: str = "train",
    inverse_penalty: float = 1.0,
    top_k: int = 1,
    mix: Mix = "outputs",
    system: str | None = None,
    batch: int = 16,
    failed: bool = False,
) -> TaskPredictor:
    """A router of whole prompts from a multinomial logistic regression, prompt -> task.

        p(task k) = softmax_k(u_k . z + o_k),  z the standardised embedding of the prompt
        p(expert e) = sum over its tasks k of p(task k) / (number of k's experts)
        weights = p / (sum of the kept p), for the top k

    An embedding is the mean of the base model's last hidden states over the prompt's tokens; the paper trains a T5
    encoder instead. Each coordinate is standardised over the training prompts; u and o minimise the sum of the log loss
    and ||u||^2 / (2 inverse_penalty).

    Args:
      tasks: only those that an expert was trained on are used; see `library.tasks`.
      examples: the number of examples per task, the first of the split; only their prompts are read.
      inverse_penalty: scikit-learn's C; a smaller value gives less certain predictions.
      top_k: experts kept per prompt, 1 in the paper; -1, or more than there are, keeps all.
      system: as in `Model.generate`.
      batch: prompts per batch; it changes results only by rounding.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError if no task has an expert, and for a task without examples in the split.
    """
    top_k, mix = checked_top_k(top_k), checked_mix(mix)
    inverse_penalty = number("inverse_penalty", inverse_penalty, above=0)
    names, experts_KE = known_tasks(library, tasks, failed)
    chosen = {name: first_of(tasks, name, examples, split) for name in names}
    embedded_nD = embed(model, [example.source for own in chosen.values() for example in own], system, batch)
    label_n = np.repeat(np.arange(len(names)), [len(own) for own in chosen.values()])
    directions_KD, offsets_K = _fitted(embedded_nD, label_n, inverse_penalty)
    fitted = (jnp.float32(directions_KD), jnp.float32(offsets_K), jnp.asarray(experts_KE))
    return TaskPredictor(*fitted, top_k, mix)


def _fitted(x_nD, label_n, inverse_penalty):
    """(directions float64[K,D], offsets float64[K]) for embeddings that are not standardised."""
    from sklearn.linear_model import LogisticRegression  # takes a second, and no other router needs it

    n_tasks = label_n.max() + 1
    if n_tasks == 1:
        return np.zeros((1, x_nD.shape[1])), np.zeros(1)
    mean_D, deviation_D = x_nD.mean(axis=0), x_nD.std(axis=0)
    deviation_D = np.where(deviation_D > 0, deviation_D, 1)
    # For two tasks scikit-learn fits one vector, u_1 - u_0, and penalises it: twice the penalty of u_0 and u_1.
    penalty = 2 * inverse_penalty if n_tasks == 2 else inverse_penalty
    found = LogisticRegression(C=penalty, tol=1e-8, max_iter=10_000).fit((x_nD - mean_D) / deviation_D, label_n)
    directions_KD, offsets_K = found.coef_, found.intercept_
    if n_tasks == 2:
        directions_KD, offsets_K = np.vstack([-directions_KD, directions_KD]) / 2, np.append(-offsets_K, offsets_K) / 2
    directions_KD = directions_KD / deviation_D
    return directions_KD, offsets_K - directions_KD @ mean_D
