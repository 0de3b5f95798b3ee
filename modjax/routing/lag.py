"""LAG routing (arXiv 2507.05346): for each token, Arrow selects a few experts and SpectR weighs them."""

import jax
import jax.numpy as jnp

from modjax.arguments import whole
from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.top_k import among
from modjax.routing.base import Router, checked_mix, per_site, static
from modjax.routing.prototypes import prototypes_of
from modjax.routing.spectr import directions, lengths
from modjax.routing.top_k import checked_temperature, checked_top_k, heard, top_k_softmax, without_silent


class Lag(Router):
    prototypes: dict[str, jax.Array] = per_site("LEI")  # float32
    directions: dict[str, jax.Array] = per_site("LERI")  # float32, each times its singular value
    retrieve: int = static(20)
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        prototype_EI, directions_ERI = self.prototypes[site], self.directions[site]
        if self.retrieve >= len(prototype_EI):
            score_BTE = without_silent(lengths(x_BTI, directions_ERI), heard(directions_ERI[:, 0]))
            return top_k_softmax(score_BTE, self.top_k, self.temperature)
        alignment_BTE = jnp.abs(jnp.einsum("bti,ei->bte", x_BTI.astype(jnp.float32), prototype_EI))
        found_BTk, ids_BTk = jax.lax.top_k(without_silent(alignment_BTE, heard(prototype_EI)), self.retrieve)
        score_BTk = jnp.where(found_BTk > -jnp.inf, _lengths_of(ids_BTk, x_BTI, directions_ERI), -jnp.inf)
        return among(ids_BTk, top_k_softmax(score_BTk, self.top_k, self.temperature))


def lag(
    library: Library,
    retrieve: int = 20,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "outputs",
    scaled: bool = False,
    failed: bool = False,
) -> Lag:
    """A router built from the library alone: Arrow's score selects `retrieve` experts, SpectR's score weighs them.

        weights = softmax over the top k of ||B_e^T A_e x|| / temperature, e among the top `retrieve` of |x . p_e|

    See `arrow` for p_e, and `spectr`.

    Args:
      retrieve: experts that Arrow selects per token; if it selects all of them, this is SpectR.
      top_k, temperature, mix, scaled: as in `spectr`, for the second stage.
      failed: as in `spectr`.

    Raises InputError for an invalid setting.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    retrieve, library = whole("retrieve", retrieve, least=1), silenced(library, failed)
    return Lag(prototypes_of(library), directions(library, scaled), retrieve, top_k, temperature, mix)


def _lengths_of(ids_BTk, x_BTI, directions_ERI):
    """float32[B,T,k]: the scores of the selected experts.

    With few tokens, as in decoding, only the directions of the selected experts are gathered. Otherwise it is faster to
    compute the products with all experts and use the selected ones.
    """
    if ids_BTk.size >= directions_ERI.shape[0]:
        return jnp.take_along_axis(lengths(x_BTI, directions_ERI), ids_BTk, axis=-1)
    own_BTkRI = directions_ERI[ids_BTk]
    return jnp.linalg.norm(jnp.einsum("bti,btkri->btkr", x_BTI.astype(jnp.float32), own_BTkRI), axis=-1)
