"""Merges that thin experts out first, so that they collide less: TIES, DARE, magnitude pruning.

What is thinned and merged number by number is, by `form` (see `modjax.merge`), A and B each by itself, or the
dense updates s_e B_e^T A_e, whose merge an SVD then cuts to a rank. Dense updates exist for one site of one layer at a
time: E * I * O numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.axis import full
from modjax.experts.library import Library
from modjax.merge.entries import Elect, merged_layer, merged_layers
from modjax.merge.product import merged_cut, truncated
from modjax.merge.result import Form, Record, checked_form, checked_weights, merged, own_rank, shares
from modjax.merge.thinning import Thinning, Trim, drawn, of_layer, trimmed, updates
from modjax.ops.lora import LoRA


class _Plan(NamedTuple):
    """How one merge goes, beside what it thins."""

    form: Form
    elect: Elect | None
    rank: int | None
    record: Record


def ties(
    library: Library,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    form: Form = "factors",
    trim: Trim = "module",
    elect: Elect = "total",
    rank: int | None = None,
    name: str = "ties",
) -> Library:
    """TIES (arXiv 2306.01708): trim, elect a sign for each entry, average the experts that agree with it.

    The paper merges whole weight updates and trims each over all modules together: form="products", trim="expert".
    PEFT's "ties" is form="roots" and its "ties_svd" form="products", both with trim="module"; at equal scales and
    weights of 1 the default, form="factors", is PEFT's "ties" too.

    Args:
      density: the share of its entries that an expert keeps, the largest.
      weights: E finite numbers that multiply the experts after the signs are elected; by default 1 each. A common
        weight is the paper's lambda.
      trim: whether the share is of each matrix's entries or of all that an expert has ("factors" and "roots": of A and
        B together, whose magnitudes may differ much).
      elect: the sign of the sum of the entries, or of the sum of their signs.
      rank: of "products", the rank to cut to, by default the largest of the experts'; `scores` has "kept_energy" then.

    Raises InputError for settings that cannot be.
    """
    _check(density, trim, elect)
    method = {"merged": "ties", "density": density, "trim": trim, "elect": elect}
    return _trimmed(library, _plan(library, weights, 1.0, form, elect, rank, name, method))


def magnitude_prune(
    library: Library,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    form: Form = "factors",
    trim: Trim = "module",
    rank: int | None = None,
    name: str = "magnitude_prune",
) -> Library:
    """The weighted sum of what trimming leaves of the experts: TIES without its election.

    PEFT's "magnitude_prune" is form="roots", its "magnitude_prune_svd" form="products". Arguments as of `ties`; weights
    are 1 / E each by default.
    """
    _check(density, trim)
    method = {"merged": "magnitude_prune", "density": density, "trim": trim}
    return _trimmed(library, _plan(library, weights, 1 / len(library), form, None, rank, name, method))


def dare(
    library: Library,
    density: float = 0.5,
    weights: Sequence[float] | None = None,
    form: Form = "factors",
    elect: Elect | None = None,
    rank: int | None = None,
    seed: int = 0,
    name: str = "dare",
) -> Library:
    """DARE (arXiv 2311.03099): drop entries at random, divide the others by their share, merge what is left.

    The paper thins weight updates: form="products". PEFT's "dare_linear" is form="roots", its "dare_ties" that with
    elect="total", its "dare_linear_svd" and "dare_ties_svd" form="products". A's and B's entries are drawn
    independently, so that without an election the expectation of every product is that without dropping.

    Args:
      density: the probability of an entry to stay, 1 - p of the paper.
      weights: E finite numbers; by default 1 / E each, and with an election 1 each.
      elect: None sums; else signs are elected and experts averaged as in `ties`.
      rank: of "products", the rank to cut to, by default the largest of the experts'; `scores` has "kept_energy" then.
      seed: with an expert's name it decides what of the expert is dropped; other experts have no part in it.

    Raises InputError for settings that cannot be.
    """
    _check(density, elect=elect or "total")
    method = {"merged": "dare", "density": density, "elect": elect or "none", "seed": seed}
    plan = _plan(library, weights, 1.0 if elect else 1 / len(library), form, elect, rank, name, method)
    return _merged(library, drawn(library, density, seed), plan)


def _check(density, trim="module", elect="total"):
    if not 0 < density <= 1:
        raise InputError(f"density={density}: expected the share of entries to keep, in (0, 1]")
    for name, value, known in (("trim", trim, get_args(Trim)), ("elect", elect, get_args(Elect))):
        if value not in known:
            raise InputError(f"{name}={value!r}: expected one of {', '.join(known)}")


def _plan(library, weights, default, form, elect, rank, name, method):
    checked_form(form, rank)
    weights_E = checked_weights(library, weights, default)
    return _Plan(form, elect, rank, Record(name, weights_E, method | {"form": form}))


def _trimmed(library, plan):
    density, trim = (plan.record.training[key] for key in ("density", "trim"))
    return _merged(library, trimmed(library, density, trim, plan.form), plan)


def _merged(library: Library, thin: Thinning, plan: _Plan) -> Library:
    """thin: (site, side) -> what thins that side of it, with the layer axis first."""
    kept = own_rank(library)
    if plan.form == "products":
        cut = {site: _cut(library, site, thin, plan, plan.rank or kept) for site in library.loras}
        return merged_cut(library, cut, plan.record)
    pair = shares(library, plan.record.weights_E, plan.form)
    loras = {}
    for site, lora in library.loras.items():
        sides = zip(("a", "b"), full(lora), pair, strict=True)
        parts = (merged_layers(leaf, thin(site, side), share_E, plan.elect) for side, leaf, share_E in sides)
        loras[site] = LoRA(*(part_LRX[:, :kept] for part_LRX in parts))
    return merged(library, loras, plan.record)


def _cut(library, site, thin, plan, rank):
    """Truncated of one site: its layers one after another, so that no two layers' updates exist at a time."""
    thin_L, share_E = thin(site, "product"), np.float32(plan.record.weights_E)
    layers = []
    for layer, update_EIO in enumerate(updates(library, site)):
        merged_IO = merged_layer(update_EIO, of_layer(thin_L, layer), share_E, plan.elect)
        layers.append(_truncated(merged_IO, rank))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


_truncated = jax.jit(truncated, static_argnames="rank")
