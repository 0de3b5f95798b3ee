"""What training mixes, in NumPy and float64."""

import numpy as np


def task_weights(logits):
    """Poly's weights of skills: sigmoids that are normalised over the last axis."""
    open_ = 1 / (1 + np.exp(-np.float64(logits)))
    return open_ / open_.sum(axis=-1, keepdims=True)


def mixed_skills(weights_HS, skills, scale_S):
    """(A, B) of one task: each of H blocks of columns is the sum of the skills' blocks by the block's own weights."""
    a_SRI, b_SRO = (np.float64(factor) for factor in skills)

    def mixed(factor_SRX, weights_HS):
        blocks = np.split(factor_SRX, len(weights_HS), axis=-1)
        return np.concatenate([np.einsum("s,srx->rx", w, x) for w, x in zip(weights_HS, blocks, strict=True)], axis=-1)

    weights_HS = np.float64(weights_HS)
    return mixed(a_SRI, weights_HS), mixed(b_SRO, weights_HS * np.float64(scale_S))
