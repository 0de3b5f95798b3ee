"""Arrow in two stages, for libraries of thousands of experts (`modjax.PagedLibrary`).

First the base model reads each prompt, and an index of the prototypes of all experts gives its candidates: those that
Arrow would give the most weight, summed over the prompt's tokens, the sites and the layers. Then the candidates alone
are brought to the device, and each token of prompt and answer is routed among them by Arrow (arXiv 2405.11157).
"""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import instance, number, whole
from modjax.errors import InputError
from modjax.experts.failed import left_out
from modjax.experts.paged import PagedLibrary
from modjax.models.decoder import Decoder
from modjax.ops.lora import Mix
from modjax.ops.top_k import TopK, Weights
from modjax.parallel.distributed import gather
from modjax.routing.arrow import Arrow
from modjax.routing.base import Bound, Router, checked_mix, per_site, static
from modjax.routing.norm import Norm, check_norm
from modjax.routing.prompt import PromptRouter, PromptRows
from modjax.routing.top_k import checked_top_k, heard


class TwoStage(PromptRouter):
    n_experts: int = static()
    candidates: int = static(32)
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("parameters")
    input_norm: Norm = static("none")
    left_out: tuple[int, ...] = static(())  # indices of experts that are no candidates
    many_alike = False  # prompts have candidates; weights are those of tokens

    def __post_init__(self):
        object.__setattr__(self, "left_out", tuple(self.left_out))  # a file gives a list, which has no hash

    @property
    def count(self) -> int:
        """The number of candidates of each prompt."""
        return min(self.candidates, self.n_experts - len(self.left_out))

    def check(self, library: PagedLibrary) -> None:
        """Raises InputError unless the router has as many experts, and the cache has room for a prompt's candidates."""
        if self.n_experts != len(library):
            raise InputError(f"the router is for {self.n_experts} experts; the library has {len(library)}")
        if self.count > library.cache:
            raise InputError(
                f"candidates={self.candidates}: expected at most {library.cache}, the experts that the library's cache "
                "holds; open it with a larger cache="
            )

    def arrow(self, prototypes: dict[str, jax.Array]) -> Arrow:
        """Arrow with the settings of the second stage."""
        return Arrow(prototypes, self.top_k, self.temperature, self.mix, self.input_norm)

    def at_once(self, loras):
        return len(loras.pages) // self.count

    def settled(self, decoder, loras, rows):
        if isinstance(rows.tokens_BT, jax.core.Tracer):
            raise InputError("a paged library reads files for its prompts; expected arrays, not a JAX transformation")
        chosen_BC = self.chosen(decoder, loras.prototypes, rows)
        with_prompt_B = np.asarray(rows.ends_BT).any(axis=1)
        needed = np.unique(chosen_BC[with_prompt_B])
        slot_E = np.zeros(self.n_experts, int)
        slot_E[needed] = loras.pages.load(needed.tolist())
        candidates_BS = np.zeros((len(chosen_BC), len(loras.pages)), bool)
        np.put_along_axis(candidates_BS, slot_E[chosen_BC], with_prompt_B[:, None], axis=1)
        page = loras.pages.slots
        heard_LS = {site: heard(prototype_LSI) for site, prototype_LSI in page.prototypes.items()}
        candidates = {site: candidates_BS[None] & own_LS[:, None] for site, own_LS in heard_LS.items()}
        return Bound(page.loras, _Among(self.arrow(page.prototypes), candidates))

    @jax.jit
    def scores(self, decoder: Decoder, prototypes: dict[str, jax.Array], rows: PromptRows) -> jax.Array:
        """The weights of Arrow over all experts, summed over each prompt's tokens, sites and layers, float32[B,E]."""
        kept_E = np.ones(self.n_experts, bool)
        kept_E[list(self.left_out)] = False

        def look(layer, sites, x_BTI):
            return {site: summed(site, layer[site], x_BTI) for site in sites if site in layer}

        def summed(site, prototype_EI, x_BTI):
            arrow, heard_E = self.arrow({site: prototype_EI}), kept_E & heard(prototype_EI)

            def one(row):
                x_TI, inside_T = row
                ids_Tk, weights_Tk = (own[0] for own in _of_ids(arrow.weights(site, x_TI[None], heard_E)))
                return jnp.zeros(self.n_experts).at[ids_Tk].add(jnp.where(inside_T[:, None], weights_Tk, 0))

            return jax.lax.map(one, (x_BTI, rows.inside_BT))  # the scores of one row's tokens are in memory at a time

        seen = decoder.observe(look, *rows, adapters=prototypes)
        return sum(seen.values()).sum(axis=0)

    def chosen(self, decoder: Decoder, prototypes: dict[str, jax.Array], rows: PromptRows) -> np.ndarray:
        """The candidates of each row, int[B,C]; prototypes: [L,E,I] of all experts."""
        kept_E = np.setdiff1d(np.arange(self.n_experts), self.left_out)
        if self.count == len(kept_E):
            return np.broadcast_to(kept_E, (len(rows.tokens_BT), self.count))
        score_BE = gather(self.scores(decoder, prototypes, rows))[:, kept_E]
        return kept_E[np.argsort(-score_BE, axis=1, kind="stable")[:, : self.count]]


class _Among(Router):
    """Arrow among the candidates of each row alone."""

    arrow: Arrow
    candidates: dict[str, jax.Array] = per_site("LBE")  # bool; without those that are silent at the site

    @property
    def mix(self) -> Mix:
        return self.arrow.mix

    def __call__(self, site, x_BTI, context):
        return self.arrow.weights(site, x_BTI, self.candidates[site][:, None])


def two_stage(
    library: PagedLibrary,
    candidates: int = 32,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "parameters",
    input_norm: Norm = "none",
    failed: bool = False,
) -> TwoStage:
    """A router of a paged library; with at least as many candidates as experts it is `arrow`.

        score_e = sum over tokens of the prompt, sites, layers of the weight of e in Arrow over all experts,
        with the inputs of the base model;  weights = Arrow among the candidates, those with the largest scores

    Args:
      candidates: experts per prompt, at most the library's `cache`.
      top_k, temperature, mix, input_norm: of Arrow; see `arrow`. Prototypes are those of its defaults.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError for an invalid setting, and for more candidates than the cache has room for.
    """
    instance("library", library, PagedLibrary)
    candidates = whole("candidates", candidates, least=1)
    top_k, temperature = checked_top_k(top_k), float(number("temperature", temperature))
    check_norm("input_norm", input_norm)
    without = left_out(library, failed)
    router = TwoStage(len(library), candidates, top_k, temperature, checked_mix(mix), input_norm, without)
    router.check(library)
    return router


def _of_ids(weights: Weights) -> TopK:
    if isinstance(weights, TopK):
        return weights
    return TopK(jnp.broadcast_to(jnp.arange(weights.shape[-1]), weights.shape), weights)
