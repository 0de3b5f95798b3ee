"""The weights of each router by its formula: plain NumPy in float64, with every product formed.

`update_EOI` are the experts' B_e^T A_e at one site of one layer, without alpha / rank; x is the input of the site.
"""

import numpy as np


def updates(library, site, layer):
    """float64[E,O,I]; A may be one for all experts."""
    a_ERI, b_ERO = (np.float64(factor[layer]) for factor in library.loras[site][:2])
    return np.stack([b_RO.T @ a_ERI[e % len(a_ERI)] for e, b_RO in enumerate(b_ERO)])


def mean_of_factors(library, site, layer):
    """The update[O,I] of the mean A and the mean of B, each by its alpha / rank; one A for all is its own mean."""
    a_ERI, b_ERO = (np.float64(factor[layer]) for factor in library.loras[site][:2])
    return (np.float64(library.scale)[:, None, None] * b_ERO).mean(0).T @ a_ERI.mean(0)


def mean_of_products(library, site, layer):
    """The mean of the experts' updates[O,I], each by its alpha / rank."""
    return (np.float64(library.scale)[:, None, None] * updates(library, site, layer)).mean(0)


def top_k_softmax(score_nE, top_k, temperature=1.0):
    weights_nE = np.zeros_like(score_nE)
    for at in np.ndindex(score_nE.shape[:-1]):
        kept = np.argsort(-score_nE[at])[: top_k if top_k > 0 else None]
        weights = np.exp((score_nE[at][kept] - score_nE[at].max()) / temperature)
        weights_nE[at][kept] = weights / weights.sum()
    return weights_nE


def top_k_shares(score_nE, top_k):
    kept_nE = np.argsort(np.argsort(-score_nE, axis=1), axis=1) < (top_k if top_k > 0 else score_nE.shape[1])
    return score_nE * kept_nE / (score_nE * kept_nE).sum(axis=1, keepdims=True)


def normed(x, norm):
    if norm == "unit":
        return x / np.linalg.norm(x, axis=-1, keepdims=True)
    if norm == "layernorm":
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x


def leading(matrix_EOI):
    """The first right singular vector of each matrix, and its singular value."""
    _, value_ER, vector_ERI = np.linalg.svd(matrix_EOI, full_matrices=False)
    return vector_ERI[:, 0], value_ER[:, 0]


def arrow_weights(prototype_EI, x_BTI, top_k, temperature, norm="none"):
    temperature = temperature if temperature > 0 else np.sqrt(x_BTI.shape[-1])
    return top_k_softmax(np.abs(normed(np.float64(x_BTI), norm) @ prototype_EI.T), top_k, temperature)


def power_prototypes(update_EOI, start_I):
    """What PEFT's fifteen iterations give in exact arithmetic."""
    v_EI = np.broadcast_to(start_I, (len(update_EOI), len(start_I)))
    for _ in range(15):
        v_EI = np.einsum("eoi,eoj,ej->ei", update_EOI, update_EOI, v_EI)
        v_EI = normed(v_EI, "unit")
    return v_EI


def lengths(update_EOI, x):
    """||B_e^T A_e x||, float64[..., E]."""
    return np.stack([np.linalg.norm(np.float64(x) @ update_OI.T, axis=-1) for update_OI in update_EOI], axis=-1)


def alignments(update_EOI, x):
    """|x . p_e|, float64[..., E]."""
    return np.abs(np.float64(x) @ leading(update_EOI)[0].T)


def spectr_weights(update_EOI, x_BTI, top_k, temperature):
    return top_k_softmax(lengths(update_EOI, x_BTI), top_k, temperature)


def lag_weights(update_EOI, x_BTI, retrieve, top_k, temperature):
    order_BTE = np.argsort(-alignments(update_EOI, x_BTI), axis=-1)
    kept_BTE = np.zeros(order_BTE.shape, bool)
    np.put_along_axis(kept_BTE, order_BTE[..., :retrieve], True, axis=-1)
    score_BTE = np.where(kept_BTE, lengths(update_EOI, x_BTI), -1e9)
    return top_k_softmax(score_BTE, top_k, temperature)


def standardised(score_nE, neutral_nE):
    return (score_nE - neutral_nE.mean(0)) / neutral_nE.std(0)


def seqr_weights(update_EOI, x_BTI, neutral_nI, top_k, temperature):
    """neutral_nI: what the site read of the tokens that scores are standardised by; None for raw scores."""
    score_BTE = lengths(update_EOI, x_BTI)
    if neutral_nI is not None:
        score_BTE = standardised(score_BTE, lengths(update_EOI, neutral_nI))
    return top_k_softmax(score_BTE, top_k, temperature)


def logo_weights(update_EOI, scale_E, x_nI, signal, top_k):
    out_nEO = scale_E[:, None] * np.einsum("eoi,ni->neo", update_EOI, x_nI)
    if signal == "norm":
        return top_k_shares(np.linalg.norm(out_nEO, axis=-1), top_k)
    share_nEO = np.exp(out_nEO - out_nEO.max(-1, keepdims=True))
    share_nEO = share_nEO / share_nEO.sum(-1, keepdims=True)
    return top_k_shares(-1 / (share_nEO * np.log(share_nEO)).sum(-1), top_k)


def pooled_scores(library, score, neutral, prompts):
    """float64[n,E]; neutral and prompts: for each text {site: float64[L,tokens,I]}; score: lengths or alignments."""
    total_nE = np.zeros((len(prompts), len(library)))
    n_layers = next(iter(library.loras.values())).b.shape[0]
    for site in library.loras:
        for layer in range(n_layers):
            update_EOI = updates(library, site, layer)
            before_nE = score(update_EOI, np.concatenate([one[site][layer] for one in neutral]))
            for i, one in enumerate(prompts):
                total_nE[i] += standardised(score(update_EOI, one[site][layer]), before_nE).mean(0)
    return total_nE / (len(library.loras) * n_layers)


def task_weights(query_nD, task_embeddings, experts_KE, top_k, temperature):
    """task_embeddings: of each task float64[m,D], its examples'."""
    task_KD = np.stack([own_mD.mean(0) for own_mD in task_embeddings])
    centre_D = task_KD.mean(0)
    cosine_nK = normed(query_nD - centre_D, "unit") @ normed(task_KD - centre_D, "unit").T
    return top_k_softmax(cosine_nK, top_k, temperature) @ experts_KE


def centroid_weights(inputs, x_BTI, top_k, temperature):
    """inputs: of each expert float64[m,I], what the site read at the last token of its examples."""
    centroid_EI = normed(np.stack([own_mI.mean(0) for own_mI in inputs]), "unit")
    temperature = temperature if temperature > 0 else np.sqrt(x_BTI.shape[-1])
    return top_k_softmax(np.float64(x_BTI) @ centroid_EI.T, top_k, temperature)


def predictor_weights(query_nD, train_mD, label_m, experts_KE, inverse_penalty, top_k):
    mean_D, deviation_D = train_mD.mean(0), train_mD.std(0)
    parameters_KD = logistic((train_mD - mean_D) / deviation_D, label_m, inverse_penalty)
    query_nD = np.c_[(query_nD - mean_D) / deviation_D, np.ones(len(query_nD))]
    return top_k_shares(_softmax(query_nD @ parameters_KD.T) @ experts_KE, top_k)


def logistic(x_mD, label_m, inverse_penalty):
    """Newton's method on sum(log loss) + ||u||^2 / (2 C), float64[K,D+1], offsets last and free."""
    one_hot_mK = np.eye(label_m.max() + 1)[label_m]
    x_mD = np.c_[x_mD, np.ones(len(x_mD))]
    shape = (one_hot_mK.shape[1], x_mD.shape[1])
    penalty_KD = np.ones(shape) / inverse_penalty
    penalty_KD[:, -1] = 0
    parameters_KD = np.zeros(shape)
    for _ in range(50):
        p_mK = _softmax(x_mD @ parameters_KD.T)
        gradient_KD = (p_mK - one_hot_mK).T @ x_mD + penalty_KD * parameters_KD
        curvature_mKJ = np.einsum("mk,kj->mkj", p_mK, np.eye(shape[0])) - np.einsum("mk,mj->mkj", p_mK, p_mK)
        hessian = np.einsum("mkj,md,mf->kdjf", curvature_mKJ, x_mD, x_mD).reshape(2 * [shape[0] * shape[1]])
        hessian += np.diag(penalty_KD.ravel())
        parameters_KD -= np.linalg.lstsq(hessian, gradient_KD.ravel())[0].reshape(shape)
    return parameters_KD


def _softmax(score_nK):
    share_nK = np.exp(score_nK - score_nK.max(-1, keepdims=True))
    return share_nK / share_nK.sum(-1, keepdims=True)


def gate_weights(gate_EI, x_BTI, top_k):
    score_BTE = normed(np.float64(x_BTI), "layernorm") @ normed(np.float64(gate_EI), "layernorm").T
    return top_k_softmax(score_BTE / np.sqrt(gate_EI.shape[-1]), top_k)


def opened(update_OI, scale, gate_I, x_BTI):
    """What PhatGoose's training adds for one expert: its output times the sigmoid of its gate."""
    x_BTI = np.float64(x_BTI)
    return (1 / (1 + np.exp(-x_BTI @ gate_I)))[..., None] * float(scale) * (x_BTI @ update_OI.T)
