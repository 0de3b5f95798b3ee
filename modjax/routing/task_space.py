"""The space in which prompts are compared with the tasks of a library, and how near a prompt of a known task is.

A prompt is described by the mean and the last of the base model's last hidden states. Directions in which the prompts
of one task differ count less (Fisher's discriminant with a shrunk covariance; Ledoit and Wolf, 2004). What "near" is
differs from task to task: the prompts of one are all alike, those of another have little in common. So the distance to
a task is measured in that of its own prompts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from modjax.models.decoder import Decoder
from modjax.ops.norms import unit
from modjax.routing.embedding import Prompts, hidden_states

FOLDS = 8  # parts of the tasks that are left out in turn


class TaskSpace(NamedTuple):
    """K tasks and what descriptions of prompts, of X = 2 D numbers, are compared with them by; float32."""

    centre_X: jax.Array
    projection_XP: jax.Array  # W
    tasks_KP: jax.Array  # t_k, unit vectors
    radii_K: jax.Array  # r_k

    def nearest(self, u_nX: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The index of the nearest task of each description, int32[n], and its distance (1 - q . t_k) / r_k."""
        query_nP = unit(jnp.matmul(u_nX - self.centre_X[None], self.projection_XP, precision=Precision.HIGHEST))
        cosine_nK = jnp.matmul(query_nP, self.tasks_KP.T, precision=Precision.HIGHEST)
        task_n = cosine_nK.argmax(axis=1)
        return task_n, (1 - cosine_nK.max(axis=1)) / self.radii_K[task_n]

    @classmethod
    def of(cls, known: Sequence[np.ndarray], directions: int, shrinkage: float) -> "TaskSpace":
        """The space of K tasks.

            W = V ((1 - g) S + g tr(S) / P I)^(-1/2),  S the covariance of V^T u within tasks
            q = unit(W^T (u - centre)),  t_k = q of the mean of a task's descriptions
            r_k = ((n_k - 1) d_k + the mean of d over tasks) / n_k,  for n_k descriptions

        d_k is the mean of 1 - q . t_k over the task's own descriptions, each left out of t_k. Of one description alone
        it cannot be measured, and of few it is uncertain; hence the mean over tasks.

        Args:
          known: descriptions of prompts of each task, float64[n,X].
          directions: V is the first P principal directions of all descriptions, at most as many as there are.
          shrinkage: g.
        """
        means_KX = np.stack([own_nX.mean(axis=0) for own_nX in known])
        centre_X = means_KX.mean(axis=0)
        basis_XP = np.linalg.svd(np.concatenate(known) - centre_X[None], full_matrices=False)[2][:directions].T
        gaps = [own_nX - mean_X[None] for own_nX, mean_X in zip(known, means_KX, strict=True)]
        within_nP = np.concatenate(gaps) @ basis_XP
        spread_PP = within_nP.T @ within_nP / len(within_nP)
        size = np.trace(spread_PP) / len(spread_PP) or 1.0  # one prompt per task: no spread, all directions alike
        values_P, vectors_PP = np.linalg.eigh((1 - shrinkage) * spread_PP + shrinkage * size * np.eye(len(spread_PP)))
        projection_XP = basis_XP @ (vectors_PP / np.sqrt(values_P)[None])
        projected = [(own_nX - centre_X[None]) @ projection_XP for own_nX in known]
        tasks_KP = unit(np.stack([own_nP.mean(axis=0) for own_nP in projected]))
        return cls(*map(jnp.float32, (centre_X, projection_XP, tasks_KP, _radii(projected))))


def _radii(projected) -> np.ndarray:
    """float64[K], r_k; 1 if there is nothing to measure."""
    others = np.asarray([len(own_nP) - 1 for own_nP in projected])
    own_K = np.asarray([_spread(own_nP) if len(own_nP) > 1 else 0.0 for own_nP in projected])
    mean = own_K[others > 0].mean() if others.any() else 0.0
    return (others * own_K + (mean or 1.0)) / (others + 1)


def _spread(own_nP) -> float:
    """The mean of 1 - the cosine of each of several vectors with the mean of the others."""
    others_nP = own_nP.sum(axis=0, keepdims=True) - own_nP
    return float(1 - (unit(own_nP) * unit(others_nP)).sum(axis=1).mean())


def threshold(known: Sequence[np.ndarray], directions: int, shrinkage: float, false_positives: float) -> float:
    """The distance to the nearest task below which this share of prompts of a new task is.

    An eighth of the tasks at a time is left out, as new tasks that often have a sibling among the others, and their
    prompts are compared with the others in a space of these alone. Arguments are those of `TaskSpace.of`; there must be
    two tasks or more.
    """
    folds, found = min(FOLDS, len(known)), []
    for fold in range(folds):
        space = TaskSpace.of([own for k, own in enumerate(known) if k % folds != fold], directions, shrinkage)
        found += [np.asarray(space.nearest(jnp.float32(own_nX))[1]) for own_nX in known[fold::folds]]
    return float(np.quantile(np.concatenate(found), false_positives))


def described(decoder: Decoder, prompts: Prompts) -> jax.Array:
    """The mean of the last hidden states over each prompt, then the last of them, each of length 1, [...,2D]."""
    hidden_BTD = hidden_states(decoder, prompts)
    return jnp.concatenate([unit(prompts.mean(hidden_BTD)), unit(prompts.last(hidden_BTD))], axis=-1)
