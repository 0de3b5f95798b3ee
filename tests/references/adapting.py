"""Skills mixed by task, and adaptation to a new task, formula by formula, in plain NumPy float64."""

import numpy as np


def task_weights(z_HS):
    open_HS = 1 / (1 + np.exp(-z_HS))
    return open_HS / open_HS.sum(axis=-1, keepdims=True)


def mixed_skills(a_SRI, b_SRO, scale_S, weights_HS):
    """A[R,I] and B[R,O] of one task: block h of the wide axis is weighted by row h."""
    n_heads = len(weights_HS)
    a_HSRi = np.stack(np.split(a_SRI, n_heads, axis=-1))
    b_HSRo = np.stack(np.split(scale_S[:, None, None] * b_SRO, n_heads, axis=-1))
    a_RI = np.concatenate(np.einsum("hs,hsri->hri", weights_HS, a_HSRi), axis=-1)
    b_RO = np.concatenate(np.einsum("hs,hsro->hro", weights_HS, b_HSRo), axis=-1)
    return a_RI, b_RO


def poly_delta(x_TI, a_SRI, b_SRO, scale_S, weights_HS):
    a_RI, b_RO = mixed_skills(a_SRI, b_SRO, scale_S, weights_HS)
    return x_TI @ a_RI.T @ b_RO


def lorahub_factors(a_LERI, b_LERO, scale_E, weights_E):
    a_LRI = sum(w * a_LERI[:, e] for e, w in enumerate(weights_E))
    b_LRO = sum(w * s * b_LERO[:, e] for e, (w, s) in enumerate(zip(weights_E, scale_E, strict=True)))
    return a_LRI, b_LRO


def lorahub_objective(logits_nTV, tokens_nT, n_prompt_n, weights_E, penalty=0.05):
    """Cross-entropy of every token after the prompts, and the penalty."""
    losses = []
    for logits_TV, tokens_T, n_prompt in zip(logits_nTV, tokens_nT, n_prompt_n, strict=True):
        for place in range(n_prompt, len(tokens_T)):
            logits_V = logits_TV[place - 1]
            losses.append(np.log(np.exp(logits_V - logits_V.max()).sum()) + logits_V.max() - logits_V[tokens_T[place]])
    return np.mean(losses) + penalty * np.mean(np.abs(weights_E))


def cat_update(a_ERI, b_ERO, scale_E, weights_E):
    """dW[O,I] of one site and layer."""
    return sum(w * s * b_RO.T @ a_RI for w, s, a_RI, b_RO in zip(weights_E, scale_E, a_ERI, b_ERO, strict=True))


def cosines(rows_EP, new_P):
    return rows_EP @ new_P / (np.linalg.norm(rows_EP, axis=1) * np.linalg.norm(new_P))


def svd_cosines(rows_EP, new_P, sparsity, components):
    """As `cosines`, of the coordinates in the leading singular vectors of all rows, sparsified."""
    x_EP = np.concatenate([rows_EP, new_P[None]])
    rank = int(np.floor(sparsity * (x_EP.shape[1] - 1)))
    threshold_E = np.sort(np.abs(x_EP), axis=1)[:, rank]
    u, sigma, _ = np.linalg.svd(np.where(np.abs(x_EP) > threshold_E[:, None], x_EP, 0), full_matrices=False)
    coordinates = (u * sigma)[:, :components]
    return cosines(coordinates[:-1], coordinates[-1])
