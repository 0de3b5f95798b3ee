"""Pooled routing: one set of weights per prompt, from the mean score over all its tokens, sites and layers.

The score of one token at one site says little about which expert is right. The mean over all tokens and sites says much
more, if each expert's scores are standardised. The weights are used for the whole answer: decoding computes no scores.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from modjax.arguments import choice, number
from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.top_k import dense
from modjax.routing.base import checked_mix, per_site, static
from modjax.routing.calibration import standardised, uncalibrated
from modjax.routing.prompt import PromptRouter
from modjax.routing.prototypes import prototypes_of
from modjax.routing.spectr import directions, lengths
from modjax.routing.top_k import checked_temperature, checked_top_k, top_k_softmax

Score = Literal["norm", "arrow"]
Otherwise = Literal["uniform", "base"]


class Pooled(PromptRouter):
    directions: dict[str, jax.Array] = per_site("LEKI")  # float32; K = R, or 1 for Arrow's score
    mean: dict[str, jax.Array] = per_site("LE")  # float32, of the score, as is
    deviation: dict[str, jax.Array] = per_site("LE")
    top_k: int = static(1)
    temperature: float = static(1.0)
    mix: Mix = static("outputs")
    least: float | None = static(None)
    otherwise: Otherwise = static("uniform")

    def weigh(self, decoder, loras, rows):
        score_BE = self.scores(decoder, rows)
        weights = top_k_softmax(score_BE, self.top_k, self.temperature)
        if self.least is None:
            return weights
        weights_BE = dense(weights, score_BE.shape[1])
        scored_BE = score_BE > -jnp.inf
        instead_BE = scored_BE / jnp.maximum(scored_BE.sum(axis=1, keepdims=True), 1)
        instead_BE = instead_BE if self.otherwise == "uniform" else jnp.zeros_like(instead_BE)
        return jnp.where(score_BE.max(axis=1, keepdims=True) >= self.least, weights_BE, instead_BE)

    def scores(self, decoder, rows):
        """Mean standardised scores over the prompt's tokens, and over the sites and layers at which an expert's update
        is not 0, float32[B,E]; -inf for an expert whose update is 0 everywhere."""
        inside_BT1 = rows.inside_BT[..., None]

        def look(layer, sites, x_BTI):
            return {site: total(layer, site, x_BTI) for site in sites if site in layer.mean}

        def total(layer, site, x_BTI):
            score_BTE = standardised(layer.raw(site, x_BTI), layer.mean[site], layer.deviation[site])
            return jnp.where(inside_BT1, score_BTE, 0).sum(axis=1)

        seen = decoder.observe(look, *rows, adapters=self)
        heard = {site: jnp.any(self.directions[site][:, :, 0] != 0, axis=-1) for site in seen}
        total_BE = sum(jnp.where(heard[site][:, None], seen[site], 0).sum(axis=0) for site in seen)
        count_1E = sum(heard_LE.sum(axis=0) for heard_LE in heard.values())[None]
        mean_BE = total_BE / (jnp.maximum(count_1E, 1) * jnp.maximum(inside_BT1.sum(axis=1), 1))
        return jnp.where(count_1E > 0, mean_BE, -jnp.inf)

    def raw(self, site: str, x_BTI: jax.Array) -> jax.Array:
        """Scores before they are standardised, float32[B,T,E]."""
        return lengths(x_BTI, self.directions[site])


def pooled(
    library: Library,
    top_k: int = 1,
    temperature: float = 1.0,
    mix: Mix = "outputs",
    score: Score = "norm",
    least: float | None = None,
    otherwise: Otherwise = "uniform",
    failed: bool = False,
) -> Pooled:
    """A router of whole prompts, built from the library alone.

    `calibrate` it before use: without calibration experts with large factors always win.

        s_e = mean over tokens, sites and layers of (score_e(x) - mean_e) / deviation_e
        weights = softmax over the top k of s / temperature, where max_e s_e >= least

    Sites and layers at which an expert's update is 0 are not in its mean.

    Args:
      top_k: experts kept per prompt; -1, or more than there are, keeps all.
      temperature: of the softmax, positive.
      mix: how kept experts are combined; "parameters" and "outputs" are equal for one expert.
      score: "norm" is ||B_e^T A_e x|| (see `spectr`), "arrow" is |x . p_e| (see `arrow`).
      least: the smallest standardised score with which the best expert is used; None always uses it.
      otherwise: the weights if no expert reaches it: "uniform" is the same for each expert with a score, "base" is 0.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError for an invalid setting.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    choice("score", score, get_args(Score))
    choice("otherwise", otherwise, get_args(Otherwise))
    least = None if least is None else float(number("least", least))
    library = silenced(library, failed)
    if score == "arrow":
        found = {site: prototype_LEI[:, :, None] for site, prototype_LEI in prototypes_of(library).items()}
    else:
        found = directions(library, scaled=False)
    return Pooled(found, *uncalibrated(library), top_k, temperature, mix, least, otherwise)
