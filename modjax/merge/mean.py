"""Weighted sums of experts: of their factors, or of their updates."""

from collections.abc import Sequence

import numpy as np

from modjax.experts.failed import without_failed
from modjax.experts.library import Library
from modjax.merge.factors import summed
from modjax.merge.product import concatenate, svd
from modjax.merge.result import Form, Record, checked_form, checked_weights, merged, own_rank, scale_of, shares
from modjax.ops.lora import Factors


def uniform(library: Library, form: Form = "factors", rank: int | None = None, name: str = "uniform") -> Library:
    """The mean of all experts, w_e = 1 / E: the static mu of arXiv 2405.11157, section 4; see `weighted`.

    Experts whose training failed are left out, with a warning.
    """
    library = without_failed(library)
    return weighted(library, np.full(len(library), 1 / len(library)), form, rank, name)


def weighted(
    library: Library,
    weights: Sequence[float],
    form: Form = "factors",
    rank: int | None = None,
    name: str = "weighted",
) -> Library:
    """The weighted sum of the experts, as a library of one.

        form="factors"    A = sum_e w_e A_e,  B = sum_e w_e s_e B_e
        form="roots"      A = sum_e +-sqrt|w_e s_e| A_e,  B = sum_e sqrt|w_e s_e| B_e
        form="products"   dW = sum_e w_e s_e B_e^T A_e

    With w_e = 1 / E, "factors" equals the router `uniform`. It is quadratic in the weights: one expert of weight w
    becomes w^2 dW_e. "roots" is PEFT's `combination_type="linear"`, which needs experts of equal
    rank.

    Args:
      weights: E finite numbers of any sign; they need not sum to 1. Experts whose training failed count as any other.
      rank: for "products", the rank to truncate the sum to (as `svd`); None keeps the whole sum (as `concatenate`).

    Raises InputError for an unknown form, an invalid rank, or weights that are not E finite numbers.
    """
    weights_E = checked_weights(library, weights)
    if checked_form(form, rank) == "products":
        return concatenate(library, weights_E, name) if rank is None else svd(library, rank, weights_E, name)
    kept, scale = own_rank(library), scale_of(library)
    whole = {site: summed(lora, shares(lora, weights_E, form, scale)) for site, lora in library.loras.items()}
    factors = {site: Factors(*(factor_LRX[:, :kept] for factor_LRX in pair)) for site, pair in whole.items()}
    return merged(library, factors, Record(name, weights_E, {"merged": "weighted", "form": form}))
