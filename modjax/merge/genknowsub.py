"""GenKnowSub: subtraction of general knowledge of language from every expert (arXiv 2505.10939).

Besides its task each expert also learns much that any text teaches. Subtracting the mean of experts trained on general
text leaves the part that is specific to the task, so that Arrow distinguishes the experts better.

    form="factors"   A'_e = A_e - mean_g A_g,  B'_e = B_e - mean_g B_g
    form="products"  s_e B'_e^T A'_e = s_e B_e^T A_e - mean_g s_g B_g^T A_g, the nearest product of its rank

"factors" is the form in the authors' code and in PEFT; it ignores scales, and its product has cross terms of expert and
mean. "products" subtracts the updates. Nothing is changed in place, so saving and reading the result does
not subtract twice.
"""

import dataclasses
import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import choice, whole
from modjax.errors import InputError
from modjax.experts.failed import without_failed
from modjax.experts.library import Library
from modjax.merge.factors import Shares, stacked, summed
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import Factors, LoRA

Form = Literal["factors", "products"]


def genknowsub(library: Library, general: Library, form: Form = "factors", rank: int | None = None) -> Library:
    """The library's experts minus the mean of the general ones; names, tasks and scales are unchanged.

    Args:
      library: E experts of rank R.
      general: G experts on the same sites; for "factors", of the same rank. Those whose training failed are left out,
        with a warning.
      form: "factors" or "products", see above.
      rank: for "products", the rank to keep, by default R; R + G * (rank of general) keeps everything.

    Raises InputError for an unknown form, for sites, shapes or ranks that do not fit, and for different base models.
    """
    choice("form", form, get_args(Form))
    if rank is not None and (form == "factors" or whole("rank", rank) < 1):
        raise InputError(f"rank={rank}, form={form!r}: expected a rank of at least 1, and only with form='products'")
    general = without_failed(general)
    _check_fit(library, general, form)
    if form == "factors":
        kept = library.rank
        loras = {site: _less_means(lora, general.loras[site]) for site, lora in library.loras.items()}
    else:
        kept, most = rank or library.rank, library.rank + len(general) * general.rank
        if kept > most:
            raise InputError(f"rank={kept}: expected at most {most}, the rank of the differences")
        loras = {site: _less_mean_product(lora, general.loras[site], kept) for site, lora in library.loras.items()}
    return Library(loras, tuple(_renewed(info, kept) for info in library.infos))


def _renewed(info, rank):
    """The info of a changed expert: its rank is the one given, and it no longer describes the arrays of a file."""
    return dataclasses.replace(info, rank=rank, alpha=info.alpha * rank / info.rank, ranks=(), dtype="float32")


def _less_means(own, general):
    share_LG = np.full(general.scale.shape, 1 / general.scale.shape[1], np.float32)
    mean_LRI, mean_LRO = summed(general, Shares(share_LG, share_LG))
    return LoRA(own.a - mean_LRI[:, None], own.b - mean_LRO[:, None], own.scale)


@functools.partial(jax.jit, static_argnames="rank")
def _less_mean_product(own, general, rank):
    """Experts of the given rank whose updates are nearest to the differences of the updates."""
    negative = stacked(general, -general.scale / general.scale.shape[1])

    def with_negative(own_LERX, negative_LSX):
        repeated = jnp.broadcast_to(negative_LSX[:, None], (*own_LERX.shape[:2], *negative_LSX.shape[1:]))
        return jnp.concatenate([own_LERX, repeated], axis=2)

    # With a scale of 0 the update is 0 whatever the factors are; this only avoids dividing by it.
    safe_LE11 = jnp.where(own.scale == 0, 1, own.scale)[..., None, None]
    a_LERI, b_LERO = own.factors
    u, s, v = low_rank_svd(Factors(*map(with_negative, (a_LERI, safe_LE11 * b_LERO), negative)))
    root_LER1 = jnp.sqrt(s[..., :rank, None])
    return LoRA(root_LER1 * v[..., :rank, :], root_LER1 * u[..., :rank, :] / safe_LE11, own.scale)


def _check_fit(library, general, form):
    if set(general.sites) != set(library.sites):
        raise InputError(
            f"general experts have sites {', '.join(general.sites)}; expected those of the library, "
            f"{', '.join(library.sites)}"
        )
    for site, own in library.loras.items():
        for side in ("a", "b"):
            got, expected = getattr(general.loras[site], side), getattr(own, side)
            if got.shape[::3] != expected.shape[::3] or (form == "factors" and got.shape[2] != expected.shape[2]):
                raise InputError(
                    f"site {site}: general factors {got.shape} (layers, experts, rank, width) do not fit "
                    f"the library's {expected.shape}"
                )
    known = {info.fingerprint for info in (*library.infos, *general.infos)} - {""}
    if len(known) > 1:
        raise InputError(f"experts of different base models, fingerprints {', '.join(sorted(known))}; expected one")
