"""Merging, formula by formula, in plain NumPy float64: one site of one layer, an update is dW[I,O] = scale A^T B."""

import numpy as np


def of_experts(a_ERI, b_ERO, scale_E):
    return np.stack([s * a_RI.T @ b_RO for a_RI, b_RO, s in zip(a_ERI, b_ERO, scale_E, strict=True)])


def updates(library):
    """{site: float64[L,E,I,O]}."""
    return {
        site: np.stack([of_experts(*layer) for layer in zip(*(np.float64(leaf) for leaf in lora), strict=True)])
        for site, lora in library.loras.items()
    }


def update(merged):
    """{site: float64[L,I,O]} of a library of one."""
    assert len(merged) == 1 and len(merged.infos) == 1
    return {site: product[:, 0] for site, product in updates(merged).items()}


def shares(scale_E, weights_E, form):
    """What A and B are multiplied by."""
    part_E = np.multiply(weights_E, scale_E)
    if form == "factors":
        return np.asarray(weights_E), part_E
    return np.copysign(np.sqrt(np.abs(part_E)), part_E), np.sqrt(np.abs(part_E))


def weighted(a_ERI, b_ERO, scale_E, weights_E, form):
    if form == "products":
        return sum(w * update_IO for w, update_IO in zip(weights_E, of_experts(a_ERI, b_ERO, scale_E), strict=True))
    a_E, b_E = shares(scale_E, weights_E, form)
    a_RI, b_RO = (
        sum(w * x for w, x in zip(a_E, a_ERI, strict=True)),
        sum(w * x for w, x in zip(b_E, b_ERO, strict=True)),
    )
    return a_RI.T @ b_RO


def concatenated(a_ERI, b_ERO, scale_E, weights_E):
    scaled_ERO = np.multiply(weights_E, scale_E)[:, None, None] * b_ERO
    return np.concatenate(list(a_ERI)).T @ np.concatenate(list(scaled_ERO))


def nearest(update_IO, rank):
    """The update of that rank with the smallest Frobenius distance."""
    u_IK, s_K, v_KO = np.linalg.svd(update_IO, full_matrices=False)
    return u_IK[:, :rank] * s_K[None, :rank] @ v_KO[:rank]


def trimmed(array, density):
    """The array with all but its largest entries zeroed."""
    magnitudes = np.sort(np.abs(array).ravel())
    return np.where(np.abs(array) >= magnitudes[-max(1, int(density * len(magnitudes)))], array, 0)


def rescaled(x, mask, density):
    """DARE, given what is drawn to stay."""
    return np.where(mask, x / density, 0)


def elected(x_EXY, weights_E, elect):
    """The weighted sum, or for each entry the mean over the experts that have the elected sign."""
    weighted_EXY = np.asarray(weights_E)[:, None, None] * x_EXY
    if not elect:
        return weighted_EXY.sum(axis=0)
    agrees_EXY = np.sign(x_EXY) == np.where(x_EXY.sum(axis=0) >= 0, 1, -1)
    return np.ma.masked_where(~agrees_EXY, weighted_EXY).mean(axis=0).filled(0)


def sparse(a_ERI, b_ERO, scale_E, weights_E, form, elect):
    """The update of thinned factors."""
    a_E, b_E = shares(scale_E, weights_E, form)
    return elected(a_ERI, a_E, elect).T @ elected(b_ERO, b_E, elect)


def less_general_factors(a_ERI, b_ERO, scale_E, a_GRI, b_GRO):
    return of_experts(a_ERI - a_GRI.mean(axis=0), b_ERO - b_GRO.mean(axis=0), scale_E)


def less_general_products(update_EIO, update_GIO, rank):
    return np.stack([nearest(update_IO - update_GIO.mean(axis=0), rank) for update_IO in update_EIO])
