"""What weighted experts add at one site of one layer, plain NumPy in float64: token by token from the definition."""

import numpy as np
from references import adapting


def delta(x_BTI, a_ERI, b_ERO, scale_E, weights, mix):
    """float64[B,T,O]; A may be one for all experts; weights [E], [B,E] or [B,T,E], with mix="heads" [B,H,E]."""
    x_BTI, a_ERI, b_ERO, scale_E, weights = (np.float64(leaf) for leaf in (x_BTI, a_ERI, b_ERO, scale_E, weights))
    a_ERI = np.broadcast_to(a_ERI, (len(b_ERO), *a_ERI.shape[1:]))
    if mix == "heads":
        both = zip(x_BTI, weights, strict=True)
        return np.stack([adapting.poly_delta(x_TI, a_ERI, b_ERO, scale_E, weights_HE) for x_TI, weights_HE in both])
    weights = weights[:, None] if weights.ndim == 2 else weights
    weights_BTE = np.broadcast_to(weights, (*x_BTI.shape[:2], len(scale_E)))
    mixed = {"parameters": of_factors, "outputs": of_products}[mix]
    out_BTO = np.zeros((*x_BTI.shape[:2], b_ERO.shape[-1]))
    for at in np.ndindex(*x_BTI.shape[:2]):
        out_BTO[at] = mixed(a_ERI, b_ERO, scale_E, weights_BTE[at]) @ x_BTI[at]
    return out_BTO


def of_factors(a_ERI, b_ERO, scale_E, weights_E):
    """The update[O,I] of sum_e w_e A_e and sum_e w_e s_e B_e."""
    a_RI = sum(w * a for w, a in zip(weights_E, a_ERI, strict=True))
    b_RO = sum(w * s * b for w, s, b in zip(weights_E, scale_E, b_ERO, strict=True))
    return b_RO.T @ a_RI


def of_products(a_ERI, b_ERO, scale_E, weights_E):
    """The update[O,I], sum_e w_e s_e B_e^T A_e."""
    return sum(w * s * b.T @ a for w, s, a, b in zip(weights_E, scale_E, a_ERI, b_ERO, strict=True))
