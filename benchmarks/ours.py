"""The side of modjax in the benchmarks: reading prompts and decoding, of the base and of routed random experts."""

import jax
import numpy as np

import modjax
from modjax import generation
from modjax.models.config import ModelConfig
from modjax.routing.base import hook

SITES = ("attn.q", "attn.k", "attn.v", "attn.o")
TOP_K = 4
VOCABULARY = 49_152  # of SmolLM2


def random_tokens(batch: int, length: int, vocabulary: int = VOCABULARY) -> np.ndarray:
    """int32[batch, length]."""
    return np.random.default_rng(batch).integers(3, vocabulary, (batch, length), np.int32)


def random_library(config: ModelConfig, experts: int, rank: int = 4, sites: tuple[str, ...] = SITES) -> modjax.Library:
    """Experts with both factors far from zero. Tokens choose all of them about equally often."""
    keys = iter(jax.random.split(jax.random.key(0), 2 * len(sites)))

    def factor(width):
        return 0.02 * jax.random.normal(next(keys), (config.L, experts, rank, width))

    factors = {site: tuple(map(factor, config.sites[site])) for site in sites}
    return modjax.Library.from_arrays(factors, family=config.family)


class Numbers:
    """A tokenizer whose text is the ids: they are what is compared."""

    def decode(self, ids, **options) -> str:
        return "".join(f"{one} " for one in ids)

    def convert_ids_to_tokens(self, one: int) -> str:
        return f"{one} "


class Side:
    """A model, with Arrow over a library or without."""

    def __init__(self, model: modjax.Model, library: modjax.Library | None = None):
        self.decoder = model.params
        self.bound = None if library is None else model.bind(library, modjax.routing.arrow(library, top_k=TOP_K))
        self.read = jax.jit(_last_logits)

    def prefill(self, tokens_BT: np.ndarray) -> np.ndarray:
        """The logits after the last token of each row."""
        return np.asarray(self.read(self.decoder, self.bound, tokens_BT))

    def temporary_mib(self, tokens_BT: np.ndarray) -> float:
        """Temporary memory of the compiled program that reads the rows."""
        compiled = self.read.lower(self.decoder, self.bound, tokens_BT).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    def decode(self, tokens_BT: np.ndarray, new: int) -> list[str]:
        """The `new` tokens after each row; no token ends an answer."""
        answers = [""] * len(tokens_BT)
        generator = generation.Generator(self.decoder, Numbers(), frozenset(), self.bound)
        request = generation.Request(max_new_tokens=new, batch=len(tokens_BT))
        for piece in generation.pieces(generator, list(tokens_BT), None, request):
            answers[piece.prompt] += piece.text
        return answers


def _last_logits(decoder, bound, tokens_BT):
    return decoder.logits(decoder(tokens_BT, **hook(bound))[:, -1])
