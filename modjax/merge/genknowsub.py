"""GenKnowSub: what all experts know of language in general, taken out of each (arXiv 2505.10939).

Experts that were trained one task each relearn much that any text teaches. Subtracting the mean of experts trained on
general text leaves what is their own, which tells them apart better under Arrow.

    form="factors"   A'_e = A_e - mean_g A_g,  B'_e = B_e - mean_g B_g
    form="products"  s_e B'_e^T A'_e = s_e B_e^T A_e - mean_g s_g B_g^T A_g, the nearest product of its rank

"factors" is what the paper's authors compute, in their code and in PEFT; scales play no part in it, and the product
keeps the cross terms of expert and mean. "products" subtracts the updates themselves. Nothing is changed in
place, so a library that is saved and read again is not subtracted from twice.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.axis import full
from modjax.experts.library import Library
from modjax.merge.factors import Shares, stacked, summed
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import LoRA

Form = Literal["factors", "products"]


def genknowsub(library: Library, general: Library, form: Form = "factors", rank: int | None = None) -> Library:
    """The library's experts less the mean of the general ones; names, tasks and scales stay.

    Args:
      library: E experts of rank R.
      general: G experts on the same sites; for "factors" of the same rank.
      form: see above.
      rank: of "products", the rank to keep, by default R; with R + G * (rank of general) nothing is lost.

    Raises InputError for another form, for sites, shapes or ranks that do not fit, and for other base models.
    """
    if form not in ("factors", "products"):
        raise InputError(f"form={form!r}: expected 'factors' or 'products'")
    if rank is not None and (form == "factors" or rank < 1):
        raise InputError(f"rank={rank} with form={form!r}: a rank of at least 1 is chosen for 'products' alone")
    _check_fit(library, general, form)
    if form == "factors":
        kept = library.rank
        loras = {site: _less_means(library, general, site) for site in library.loras}
    else:
        kept, most = rank or library.rank, library.rank + len(general) * general.rank
        if kept > most:
            raise InputError(f"rank={kept}: the differences have at most rank {most}")
        loras = {
            site: _less_mean_product(lora, library.scale, general.loras[site], general.scale, kept)
            for site, lora in library.loras.items()
        }
    return Library(loras, library.scale, tuple(_renewed(info, kept, form) for info in library.infos))


def _renewed(info, rank, form):
    """An expert of a smaller rank than the library's has it no more, and its factors are no file's."""
    ratios = info.ratios if form == "factors" else ()
    alpha = info.alpha * rank / info.rank
    return dataclasses.replace(info, rank=rank, alpha=alpha, ranks=(), ratios=ratios, dtype="float32")


def _less_means(library, general, site):
    # Where a file gives a module a scale of its own, b holds what that differs by.
    own_LE11, general_LG11 = _ratios(library, site), _ratios(general, site)
    own, others = library.loras[site], general.loras[site]
    part_G = np.full(len(general), 1 / len(general), np.float32)
    mean_LRI, mean_LRO = summed(LoRA(others.a, others.b / general_LG11), Shares(part_G, part_G))
    return LoRA(own.a - mean_LRI[:, None], (own.b / own_LE11 - mean_LRO[:, None]) * own_LE11)


def _ratios(library, site):
    n_layers = library.loras[site].a.shape[0]
    of_experts = [dict(info.ratios).get(site, (1.0,) * n_layers) for info in library.infos]
    return jnp.asarray(of_experts, jnp.float32).T[:, :, None, None]


@functools.partial(jax.jit, static_argnames="rank")
def _less_mean_product(own, scale_E, general, scale_G, rank):
    """Factors of rank `rank` whose product, times the expert's scale, is nearest to the difference of the updates."""
    negative = stacked(general, -scale_G / len(scale_G))

    def with_negative(own_LERX, negative_LSX):
        repeated = jnp.broadcast_to(negative_LSX[:, None], (*own_LERX.shape[:2], *negative_LSX.shape[1:]))
        return jnp.concatenate([own_LERX, repeated], axis=2)

    # A scale of 0 silences its expert whatever its factors are.
    safe_E = jnp.where(scale_E == 0, 1, scale_E)[None, :, None, None]
    scaled = full(LoRA(own.a, own.b * safe_E))
    u, s, v = low_rank_svd(LoRA(*map(with_negative, scaled, negative)))
    root_LER1 = jnp.sqrt(s[..., :rank, None])
    return LoRA(root_LER1 * v[..., :rank, :], root_LER1 * u[..., :rank, :] / safe_E)


def _check_fit(library, general, form):
    if set(general.sites) != set(library.sites):
        raise InputError(
            f"general experts on {', '.join(general.sites)}; the library's are on {', '.join(library.sites)}"
        )
    for site, own in library.loras.items():
        for got, expected in zip(general.loras[site], own, strict=True):
            if got.shape[::3] != expected.shape[::3] or (form == "factors" and got.shape[2] != expected.shape[2]):
                raise InputError(
                    f"site {site}: general factors {got.shape} (layers, experts, rank, width) do not fit "
                    f"{expected.shape} of the library"
                )
    known = {info.fingerprint for info in (*library.infos, *general.infos)} - {""}
    if len(known) > 1:
        raise InputError(f"the experts are of different base models ({', '.join(sorted(known))})")
