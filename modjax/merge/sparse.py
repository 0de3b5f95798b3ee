"""Merges of sparsified experts, which interfere less: TIES, DARE, magnitude pruning.

`form` (see `modjax.merge`) decides which arrays are sparsified and merged entry by entry: A and B separately, or the
dense updates s_e B_e^T A_e, whose merge is then truncated to a rank by SVD. Dense updates are in memory for one site of
one layer at a time: E * I * O numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.experts.library import Library
from modjax.merge.entries import merged_layer, merged_layers
from modjax.merge.product import merged_cut, truncated
from modjax.merge.result import Form, Record, checked_form, merged, own_rank, scale_of, shares, weighed
from modjax.merge.thinning import Thinning, drawn, of_layer, trimmed, updates
from modjax.ops.lora import Factors


class _Plan(NamedTuple):
    """The settings of one merge, except how entries are dropped."""

    form: Form
    elect: bool
    rank: int | None
    record: Record


def ties(
    library: Library,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    form: Form = "factors",
    rank: int | None = None,
    name: str = "ties",
) -> Library:
    """TIES (arXiv 2306.01708): trim, elect a sign for each entry, average the experts with that sign.

    PEFT's "ties" is form="roots" and its "ties_svd" form="products"; at equal scales and weights of 1 the default,
    form="factors", is PEFT's "ties" too. Like PEFT it trims each matrix separately, where the paper trims all matrices
    of an expert together.

    Args:
      density: the share of each matrix's entries that an expert keeps, those of largest magnitude.
      weights: E finite numbers that multiply the experts after the signs are elected; by default 1 each, without the
        experts whose training failed. A common weight is the paper's lambda.
      rank: for "products", the rank to truncate to, by default the largest of the experts'; `scores` of the ExpertInfo
        then has "kept_energy".

    Raises InputError for invalid settings.
    """
    density, (library, weights_E) = _checked(density), weighed(library, weights, 1.0)
    plan = _plan(density, weights_E, form, rank, name, {"merged": "ties"}, elect=True)
    return _merged(library, trimmed(library, density), plan)


def magnitude_prune(
    library: Library,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    form: Form = "factors",
    rank: int | None = None,
    name: str = "magnitude_prune",
) -> Library:
    """The weighted sum of the trimmed experts: TIES without the election of signs.

    PEFT's "magnitude_prune" is form="roots", its "magnitude_prune_svd" form="products". Arguments are those of `ties`;
    weights are 1 / E each by default.
    """
    density, (library, weights_E) = _checked(density), weighed(library, weights)
    plan = _plan(density, weights_E, form, rank, name, {"merged": "magnitude_prune"}, elect=False)
    return _merged(library, trimmed(library, density), plan)


def dare(
    library: Library,
    density: float = 0.5,
    weights: Sequence[float] | None = None,
    form: Form = "factors",
    elect: bool = False,
    rank: int | None = None,
    seed: int = 0,
    name: str = "dare",
) -> Library:
    """DARE (arXiv 2311.03099): drop entries at random, divide the others by the share that is kept, and merge.

    The paper thins weight updates: form="products". PEFT's "dare_linear" is form="roots", its "dare_ties" the same with
    elect=True, its "dare_linear_svd" and "dare_ties_svd" form="products". Entries of A and B are drawn independently,
    so that without an election dropping does not change the expectation of any product.

    Args:
      density: the probability that an entry is kept, 1 - p of the paper.
      weights: E finite numbers; by default 1 / E each, with an election 1 each, without the experts whose training
        failed.
      elect: whether to elect signs and average the experts with that sign, as in `ties`; else all are summed.
      rank: for "products", the rank to truncate to, by default the largest of the experts'; `scores` of the ExpertInfo
        then has "kept_energy".
      seed: determines, with an expert's name, which of its entries are dropped; other experts have no influence.

    Raises InputError for invalid settings.
    """
    density, elect, seed = _checked(density), arguments.flag("elect", elect), arguments.seed("seed", seed)
    library, weights_E = weighed(library, weights, 1.0 if elect else None)
    plan = _plan(density, weights_E, form, rank, name, {"merged": "dare", "elect": elect, "seed": seed}, elect)
    return _merged(library, drawn(library, density, seed), plan)


def _checked(density) -> float:
    return arguments.number("density", density, above=0, most=1)


def _plan(density, weights_E, form, rank, name, method, elect) -> _Plan:
    checked_form(form, rank)
    return _Plan(form, elect, rank, Record(name, weights_E, method | {"density": density, "form": form}))


def _merged(library: Library, thin: Thinning, plan: _Plan) -> Library:
    kept = own_rank(library)
    if plan.form == "products":
        cut = {site: _cut(library, site, thin, plan, plan.rank or kept) for site in library.loras}
        return merged_cut(library, cut, plan.record)
    factors, scale = {}, scale_of(library)
    for site, lora in library.loras.items():
        pair = shares(lora, plan.record.weights_E, plan.form, scale)
        sides = zip(("a", "b"), lora.factors, pair, strict=True)
        parts = (merged_layers(leaf, thin(site, side), share_LE, plan.elect) for side, leaf, share_LE in sides)
        factors[site] = Factors(*(part_LRX[:, :kept] for part_LRX in parts))
    return merged(library, factors, plan.record)


def _cut(library, site, thin, plan, rank):
    """The truncated merge of one site, layer by layer, so that only the updates of one layer are in memory."""
    thin_L, share_E = thin(site, "product"), np.float32(plan.record.weights_E)
    layers = []
    for layer, update_EIO in enumerate(updates(library, site)):
        merged_IO = merged_layer(update_EIO, of_layer(thin_L, layer), share_E, plan.elect)
        layers.append(_truncated(merged_IO, rank))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


_truncated = jax.jit(truncated, static_argnames="rank")
