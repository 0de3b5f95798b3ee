"""LoGo routing (arXiv 2511.07129): experts weighed by the norm or entropy of their output at the end of the prompt."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import choice, instance, whole
from modjax.experts.failed import left_out
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.base import checked_mix, static
from modjax.routing.prompt import PromptRouter
from modjax.routing.top_k import checked_top_k, top_k_shares

Signal = Literal["norm", "entropy"]


class Logo(PromptRouter):
    n_experts: int = static()
    site: str = static()
    layer: int = static(-1)
    signal: Signal = static("norm")
    top_k: int = static(20)
    mix: Mix = static("outputs")
    left_out: tuple[int, ...] = static(())  # indices of experts that get no weight

    def __post_init__(self):
        object.__setattr__(self, "left_out", tuple(self.left_out))  # a file gives a list, which has no hash

    def weigh(self, decoder, loras, rows):
        def look(_, sites, x_BTI):
            return {self.site: rows.last(x_BTI)} if self.site in sites else {}

        x_BI = decoder.observe(look, *rows)[self.site][self.layer].astype(jnp.float32)
        a_ERI, b_ERO, scale_E = (leaf[self.layer] for leaf in loras[self.site])
        z_BER = jnp.einsum("bi,eri->ber", x_BI, a_ERI)
        z_BER = jnp.broadcast_to(z_BER, (len(z_BER), *b_ERO.shape[:2]))  # experts may share one A
        out_BEO = scale_E[None, :, None] * jnp.einsum("ber,ero->beo", z_BER, b_ERO)
        signal_BE = jnp.where(jnp.any(out_BEO != 0, axis=-1), _signal(out_BEO, self.signal), 0)
        kept = np.setdiff1d(np.arange(self.n_experts), self.left_out)
        return jnp.zeros_like(signal_BE).at[:, kept].set(top_k_shares(signal_BE[:, kept], self.top_k))


def logo(
    library: Library,
    top_k: int = 20,
    signal: Signal = "norm",
    layer: int = -1,
    site: str | None = None,
    mix: Mix = "outputs",
    failed: bool = False,
) -> Logo:
    """A router of whole prompts, built from the library alone.

        o_e = s_e B_e^T A_e x, x the site's input at the prompt's last token;  score_e = ||o_e||, or 1 / H(softmax(o_e))
        weights = score / (sum of the kept scores), for the top k

    The base model reads the prompt; in the paper the model reads it with all experts attached, and the paper's code
    takes x before the block's norm. The weights are computed once per prompt and used for the whole answer. An expert
    whose output is 0 has the score 0; if all have, each kept expert gets the same weight.

    Args:
      top_k: experts kept per prompt, 20 in the paper; -1, or more than there are, keeps all.
      signal: "norm", or the inverse "entropy" of the output read as logits.
      layer: the layer whose outputs are used; -1 is the last, as in the paper.
      site: by default attn.q, as in the paper, or the library's first site if it has no attn.q.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError for an invalid setting.
    """
    top_k, mix, n_layers = checked_top_k(top_k), checked_mix(mix), instance("library", library, Library).layers
    if site is None:
        site = "attn.q" if "attn.q" in library.sites else library.sites[0]
    choice("site", site, library.sites)
    layer = whole("layer", layer, least=-n_layers, most=n_layers - 1)
    choice("signal", signal, get_args(Signal))
    return Logo(len(library), site, layer, signal, top_k, mix, left_out(library, failed))


def _signal(out_BEO, signal):
    if signal == "norm":
        return jnp.linalg.norm(out_BEO, axis=-1)
    log_BEO = jax.nn.log_softmax(out_BEO)
    entropy_BE = -jnp.sum(jnp.exp(log_BEO) * log_BEO, axis=-1)
    return 1 / (entropy_BE + 1e-6)
