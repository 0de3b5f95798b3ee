"""The space in which prompts are compared with the tasks of a library, and how near a prompt of a known task is.

A prompt is described by the mean and the last of the base model's last hidden states. Directions in which the prompts
of one task differ count less (Fisher's discriminant with a shrunk covariance; Ledoit and Wolf, 2004). What "near" is,
the library's own tasks tell: those that are left out are new tasks, and often have a sibling among the others.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax.models.decoder import Decoder
from modjax.ops.norms import unit
from modjax.routing.embedding import Prompts, hidden_states

FOLDS = 8  # parts of the tasks that are left out in turn


class TaskSpace(NamedTuple):
    """Descriptions u are compared as unit((u - centre) W) with the tasks' own; float64, X = 2 D."""

    centre_X: np.ndarray
    projection_XP: np.ndarray  # W
    tasks_KP: np.ndarray  # unit vectors

    def similarity(self, u_nX: np.ndarray) -> np.ndarray:
        """The cosine of each description with each task, [n,K]."""
        return np.asarray(unit((u_nX - self.centre_X[None]) @ self.projection_XP)) @ self.tasks_KP.T

    @classmethod
    def of(cls, known: list[np.ndarray], directions: int, shrinkage: float) -> "TaskSpace":
        """The space of K tasks.

            W = V ((1 - g) S + g tr(S) / P I)^(-1/2),  S the covariance of V^T u within tasks

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
        return cls(centre_X, projection_XP, np.asarray(unit((means_KX - centre_X[None]) @ projection_XP)))


def threshold(known: list[np.ndarray], directions: int, shrinkage: float, false_positives: float) -> float:
    """The similarity to the nearest task that this share of prompts of a new task exceeds.

    An eighth of the tasks at a time is left out, and their prompts are compared with the others in a space of these
    alone. Arguments are those of `TaskSpace.of`; there must be two tasks or more.
    """
    folds, found = min(FOLDS, len(known)), []
    for fold in range(folds):
        space = TaskSpace.of([own for k, own in enumerate(known) if k % folds != fold], directions, shrinkage)
        found += [space.similarity(own_nX).max(axis=1) for own_nX in known[fold::folds]]
    return float(np.quantile(np.concatenate(found), 1 - false_positives))


def described(decoder: Decoder, prompts: Prompts) -> jax.Array:
    """The mean of the last hidden states over each prompt, then the last of them, each of length 1, [...,2D]."""
    hidden_BTD = hidden_states(decoder, prompts)
    return jnp.concatenate([unit(prompts.mean(hidden_BTD)), unit(prompts.last(hidden_BTD))], axis=-1)
