"""Analysis of a router: entropy of its weights, use of each expert by layer and site, agreement with the oracle."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.data.tasks import Tasks
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.eval.likelihood import check
from modjax.eval.method import Method
from modjax.eval.sample import Sample, prepared
from modjax.eval.traces import token_weights
from modjax.model import Model
from modjax.models.padding import filled
from modjax.parallel.distributed import gather
from modjax.routing.batches import one_each
from modjax.routing.prompt import routed


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """Statistics of a router on the tokens of some prompts, for each of L layers and S sites.

    Attributes:
      experts: E names.
      sites: S names, in the model's order.
      use_LSE: float64, the mean weight of each expert.
      entropy_LS: float64, nats, the mean over tokens of the entropy of a token's weights; at most log E.
      tokens_right_LS: float64, the share of tokens whose top expert is the oracle's, which is the one trained on the
        prompt's task; NaN where no prompt has one. Chance is 1 / E.
      examples_right_LS: float64, the same share of prompts, by weights summed over their tokens.
      accuracy: the share of prompts by weights summed over tokens, sites and layers.
      examples, tokens: the number of prompts and of their tokens.
    """

    experts: tuple[str, ...]
    sites: tuple[str, ...]
    use_LSE: np.ndarray
    entropy_LS: np.ndarray
    tokens_right_LS: np.ndarray
    examples_right_LS: np.ndarray
    accuracy: float
    examples: int
    tokens: int

    def as_json(self) -> dict:
        """The attributes and `effective`, rounded to four decimals; None where nothing was measured."""
        arrays = {
            "use": self.use_LSE,
            "entropy": self.entropy_LS,
            "effective": self.effective_LS,
            "tokens_right": self.tokens_right_LS,
            "examples_right": self.examples_right_LS,
            "accuracy": np.float64(self.accuracy),
        }
        measured = {name: None if np.isnan(array).any() else array.round(4).tolist() for name, array in arrays.items()}
        counts = {"examples": self.examples, "tokens": self.tokens}
        return {"experts": list(self.experts), "sites": list(self.sites), **counts, **measured}

    @property
    def effective_LS(self) -> np.ndarray:
        """float64, the effective number of experts in use: exp of the entropy of their mean weights, 1 to E."""
        share_LSE = np.abs(self.use_LSE) / np.maximum(np.abs(self.use_LSE).sum(-1, keepdims=True), 1e-30)
        return np.exp(-(share_LSE * np.log(np.where(share_LSE > 0, share_LSE, 1))).sum(-1))


def analyse(
    model: Model,
    method: Method,
    tasks: Tasks,
    sample: Sample = Sample(),  # noqa: B008, frozen
    batch: int = 16,
) -> Analysis:
    """Analyses a method's router on the prompts of the tasks that the method covers.

        share_e = |w_e| / sum_e |w_e|,  entropy = -sum_e share_e log share_e

    Weights per example or task count for each of the example's tokens; those of heads are averaged over heads.

    Args:
      batch: number of prompts computed at once; results depend on it only by rounding.

    Raises InputError for a method without a router.
    """
    arguments.instance("model", model, Model)
    if arguments.instance("method", method, Method).router is None:
        raise InputError(f"method {method.name!r} has no router; expected one to analyse")
    chosen = prepared(model, method.covered(tasks), sample)
    prompts = [Encoded(one.encoded.tokens[: one.encoded.n_prompt], one.encoded.n_prompt) for one in chosen]
    owners = [method.expert_of(one.task) for one in chosen]
    bound = model.bind(method.loaded, method.router)
    parts = []
    check(model, prompts)
    for own in one_each(prompts, bound, method.choices_of(chosen), batch, model.params.row_shards):
        rows, ids = own.rows, [member.example for member in own.members]
        owner_B = filled([-1 if owners[i] is None else owners[i] for i in ids], rows.n_rows, -1)
        sums = gather(_sums(model.params, bound, own.context, own.prompts, rows, owner_B))
        parts.append(_totals([sums[site] for site in method.library.sites], owner_B, (rows.ends > 0).sum(1)))
    return _analysis(method.library, functools.reduce(_added, parts))


class _Totals(NamedTuple):
    """Sums over prompts and their tokens, float64."""

    weights_LSE: np.ndarray
    entropy_LS: np.ndarray
    tokens_right_LS: np.ndarray
    examples_right_LS: np.ndarray
    counts: np.ndarray  # prompts, their tokens; of tasks with one expert: prompts, their tokens, prompts routed to it


def _added(one: _Totals, two: _Totals) -> _Totals:
    return _Totals(*(a + b for a, b in zip(one, two, strict=True)))


def _totals(sums, owner_B, tokens_B) -> _Totals:
    weights_LSBE, entropy_LSB, right_LSB = (
        np.stack([np.float64(own[part]) for own in sums], axis=1) for part in range(3)
    )
    owned_B = owner_B >= 0
    right_B = owned_B & (weights_LSBE.sum((0, 1)).argmax(-1) == owner_B)
    return _Totals(
        weights_LSBE.sum(2),
        entropy_LSB.sum(2),
        right_LSB.sum(2),
        (owned_B & (weights_LSBE.argmax(-1) == owner_B)).sum(2),
        np.asarray([(tokens_B > 0).sum(), tokens_B.sum(), owned_B.sum(), tokens_B[owned_B].sum(), right_B.sum()]),
    )


def _analysis(library, totals: _Totals) -> Analysis:
    examples, tokens, owned, owned_tokens, right = (int(count) for count in totals.counts)

    def share(count, whole):
        return count / whole if whole else np.full_like(np.float64(count), np.nan)

    return Analysis(
        experts=library.names,
        sites=library.sites,
        use_LSE=totals.weights_LSE / tokens,
        entropy_LS=totals.entropy_LS / tokens,
        tokens_right_LS=share(totals.tokens_right_LS, owned_tokens),
        examples_right_LS=share(totals.examples_right_LS, owned),
        accuracy=float(share(right, owned)),
        examples=examples,
        tokens=tokens,
    )


@jax.jit
def _sums(decoder, bound, context, prompts, rows, owner_B):
    """{site: (weights_LBE, entropy_LB, right_LB)}, sums over the tokens of each row."""
    inside_BT = rows.ends > 0

    def look(layer, sites, x_BTI):
        return {
            site: sums(token_weights(layer.router, site, x_BTI, context, bound.loras[site].b.shape[1]))
            for site in sites
            if site in bound.loras
        }

    def sums(weights_BTE):
        size_BTE = jnp.abs(weights_BTE)
        share_BTE = size_BTE / jnp.maximum(size_BTE.sum(-1, keepdims=True), 1e-30)
        entropy_BT = -jax.scipy.special.xlogy(share_BTE, share_BTE).sum(-1)
        right_BT = inside_BT & (weights_BTE.argmax(-1) == owner_B[:, None])
        weights_BE = jnp.where(inside_BT[..., None], weights_BTE, 0).sum(1)
        return weights_BE, jnp.where(inside_BT, entropy_BT, 0).sum(1), right_BT.sum(1)

    experts = routed(decoder, bound, prompts, context)
    return decoder.observe(look, rows.tokens, rows.positions, rows.ends, **experts)
