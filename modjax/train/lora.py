"""Training LoRA experts: A and B of every member, beside the frozen decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.loader import key_of
from modjax.experts import tie
from modjax.models.config import ModelConfig
from modjax.ops.lora import LoRA, low_rank
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings

Loras = dict[str, LoRA]  # {site: a[L,E,R,I], b[L,E,R,O]}, float32


class LoRATraining(Recipe):
    """E experts of one rank, each its own A and B."""

    def __init__(self, config: ModelConfig, settings: Settings, n_experts: int, init: Loras | None = None):
        self.config, self.settings, self.n_experts = config, settings, n_experts
        self.given = init
        self.frozen = np.full(n_experts, settings.alpha / settings.rank, np.float32)

    def start(self, key, given):
        if given is None:
            given = init_loras(key, self.n_experts, self.config, self.settings)
        return tie.once(given, self.settings.tie)

    def attach(self, decoder, trained, frozen, rows, key):
        return decoder, beside(decoder, *self.experts(trained, frozen), self.settings.dropout, key)

    def experts(self, trained, frozen):
        return tie.everywhere(trained, self.settings.tie), frozen


class SharedATraining(LoRATraining):
    """E experts with one A, which stays as it began: only B is trained (SEQR, arXiv 2509.18093)."""

    def __init__(self, config: ModelConfig, settings: Settings, n_experts: int, init: Loras | None = None):
        super().__init__(config, settings, n_experts)
        if init is None:
            init = jax.jit(lambda: init_loras(jax.random.key(settings.seed), 1, config, settings))()
        self.given = {site: lora.b for site, lora in init.items()}
        self.frozen = self.frozen, {site: lora.a for site, lora in init.items()}

    def start(self, key, given):
        return {site: jnp.broadcast_to(b, (b.shape[0], self.n_experts, *b.shape[2:])) for site, b in given.items()}

    def experts(self, trained, frozen):
        scale_E, a = frozen
        return {site: LoRA(a[site], b) for site, b in trained.items()}, scale_E


def init_loras(key: jax.Array, n_experts: int, config: ModelConfig, settings: Settings) -> Loras:
    """A from U(+-1/sqrt(I)) (Kaiming-uniform), B zero: every expert begins as the base model.

    All experts begin with the same A, as runs of one seed do. Experts of few steps stay near it, so their
    similarity tells what they learned and not where they began, and the mean of their factors is worth something.
    """
    loras, first = {}, tie.firsts(settings.tie)
    for site in settings.sites:
        width, out = config.sites[site]
        a = init_a(jax.random.fold_in(key, key_of(first.get(site, site), 0)), (config.L, 1, settings.rank, width))
        b = jnp.zeros((config.L, n_experts, settings.rank, out), jnp.float32)
        loras[site] = LoRA(jnp.broadcast_to(a, (config.L, n_experts, settings.rank, width)), b)
    return loras


def init_a(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """float32 from U(+-1/sqrt(I)), I the last axis."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def beside(decoder, loras: Loras, scale, dropout: float, key: jax.Array | None) -> dict:
    """One expert's arrays and keys by layer, and the function that lets the decoder use them."""

    def adapt(layer, sites, x_BTI):
        own, key = layer
        sites = [site for site in sites if site in own]
        if key is not None and sites:
            x_BTI = drop(x_BTI, jax.random.fold_in(key, list(decoder.config.sites).index(sites[0])), dropout)
        return {site: low_rank(x_BTI, own[site].a, scale * own[site].b) for site in sites}

    return {"adapters": (loras, layer_keys(decoder, dropout, key)), "adapt": adapt}


def layer_keys(decoder, dropout: float, key: jax.Array | None) -> jax.Array | None:
    """key[L]; None where nothing is dropped."""
    if key is None or not dropout:
        return None
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(decoder.config.L))


def drop(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout; sites that read one input share its mask."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
