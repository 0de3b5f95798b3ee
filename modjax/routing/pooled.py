"""Pooled routing: one set of weights per prompt, from the mean score over all its tokens, sites and layers.

The score of one token at one site says little about which expert is right. The mean over all tokens and sites says much
more, if each expert's scores are standardised. The weights are used for the whole answer: decoding computes no scores.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.arrow import arrow
from modjax.routing.base import per_site, static
from modjax.routing.calibration import standardised, uncalibrated
from modjax.routing.prompt import PromptRouter
from modjax.routing.spectr import directions, lengths
from modjax.routing.top_k import check_temperature, check_top_k, top_k_softmax

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
        weights_BE = top_k_softmax(score_BE[:, None], self.top_k, self.temperature)[:, 0]
        if self.least is None:
            return weights_BE
        n_experts = score_BE.shape[1]
        instead = 1 / n_experts if self.otherwise == "uniform" else 0.0
        return jnp.where(score_BE.max(axis=1, keepdims=True) >= self.least, weights_BE, instead)

    def scores(self, decoder, rows):
        """Mean standardised scores over the prompt's tokens, sites and layers, float32[B,E]."""
        inside_BT1 = (rows.segments_BT > 0)[..., None]

        def look(layer, sites, x_BTI):
            return {site: total(layer, site, x_BTI) for site in sites if site in layer.mean}

        def total(layer, site, x_BTI):
            score_BTE = standardised(layer.raw(site, x_BTI), layer.mean[site], layer.deviation[site])
            return jnp.where(inside_BT1, score_BTE, 0).sum(axis=1)

        seen = decoder.observe(look, *rows, adapters=self)
        mean_BE = sum(total_LBE.mean(axis=0) for total_LBE in seen.values()) / len(seen)
        return mean_BE / jnp.maximum(inside_BT1.sum(axis=1), 1)

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
) -> Pooled:
    """A router of whole prompts, built from the library alone.

    `calibrate` it before use: without calibration experts with large factors always win.

        s_e = mean over tokens, sites and layers of (score_e(x) - mean_e) / deviation_e
        weights = softmax over the top k of s / temperature, where max_e s_e >= least

    Args:
      top_k: experts kept per prompt; -1, or more than there are, keeps all.
      temperature: of the softmax, positive.
      mix: how kept experts are combined; "parameters" and "outputs" are equal for one expert.
      score: "norm" is ||B_e^T A_e x|| (see `spectr`), "arrow" is |x . p_e| (see `arrow`).
      least: the smallest standardised score with which the best expert is used; None always uses it.
      otherwise: the weights if no expert reaches it: "uniform" is 1 / E each, "base" is 0.

    Raises InputError for an invalid setting.
    """
    check_top_k(top_k)
    check_temperature(temperature)
    if score not in get_args(Score) or otherwise not in get_args(Otherwise):
        raise InputError(
            f"score={score!r}, otherwise={otherwise!r}: expected one of {', '.join(get_args(Score))}, "
            f"and one of {', '.join(get_args(Otherwise))}"
        )
    if score == "arrow":
        found = {site: prototype_LEI[:, :, None] for site, prototype_LEI in arrow(library).prototypes.items()}
    else:
        found = directions(library, scaled=False)
    least = None if least is None else float(least)
    return Pooled(found, *uncalibrated(library), top_k, float(temperature), mix, least, otherwise)
