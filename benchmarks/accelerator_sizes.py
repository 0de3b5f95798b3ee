"""What `accelerator.py` measures: two models of random weights, and examples like those of Super-NaturalInstructions.

Examples are random token ids: 85 tokens that the examples of a task share, 25 to 55 of their own, a target of 4 to 20.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import library_training
import numpy as np
import peer

import modjax
from modjax.data.tokenize import Encoded
from modjax.files import read_json_object
from modjax.models import local
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder

SMOLLM2, PHI2 = (read_json_object(local.KNOWN[name]) for name in ("smollm2-135m", "phi-2"))
TINY = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SHARED, OWN, TARGET = 85, (25, 55), (4, 20)  # tokens of an example


class Sizes(NamedTuple):
    """What the parts measure; the fields of `SMALL` are for a proof on a CPU."""

    models: dict[str, dict]  # config.json of each
    library: dict[str, tuple[int, int, int]]  # experts, rows per expert, tokens per row
    experts: tuple[int, ...] = (10, 40, 256)  # Arrow
    peer_experts: int = 10  # Arrow of peft
    prompt: int = 1024  # tokens that are read
    new: int = 64  # tokens that are decoded
    batches: tuple[int, ...] = (1, 8)
    questions: int = 64
    repeats: int = 3
    matrix: int = 8192
    clustered: int = 256  # experts that are clustered


FULL = Sizes({"smollm2": SMOLLM2, "phi2": PHI2}, {"smollm2": (64, 2, 1024), "phi2": (8, 4, 2048)})
SMALL = Sizes(
    models={
        "smollm2": SMOLLM2 | TINY | {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48},
        "phi2": PHI2 | TINY | {"num_attention_heads": 2, "num_key_value_heads": 2},
    },
    library={"smollm2": (3, 1, 256), "phi2": (2, 1, 256)},
    experts=(5,),
    peer_experts=5,
    prompt=32,
    new=4,
    batches=(2,),
    questions=2,
    repeats=1,
    matrix=256,
    clustered=12,
)


def config(sizes: Sizes, name: str) -> ModelConfig:
    return ModelConfig.from_hf(sizes.models[name], name)


def model_of(sizes: Sizes, name: str, dtype: Any = jnp.bfloat16) -> modjax.Model:
    """A model of random weights."""
    init = jax.jit(functools.partial(Decoder.init, config(sizes, name), dtype=dtype))
    return modjax.Model(name, init(jax.random.key(0)))


def torch_model(sizes: Sizes, name: str):
    """The same model in transformers, with random weights of its own."""
    return peer.random(sizes.models[name])


def instructions(vocabulary: int, experts: int, rows: int, length: int) -> dict[str, list[Encoded]]:
    """For each expert as many examples as fill its rows."""
    rng = np.random.default_rng(0)
    found = {}
    for expert in range(experts):
        shared = rng.integers(3, vocabulary, SHARED)
        most = 2 + rows * length // (OWN[0] + TARGET[0])
        sizes = zip(rng.integers(*OWN, most), rng.integers(*TARGET, most), strict=True)
        examples = [
            Encoded(np.append(shared, rng.integers(3, vocabulary, own + target)).astype(np.int32), SHARED + int(own))
            for own, target in sizes
        ]
        found[f"task{expert}"] = library_training.filling(examples, rows, length)
    return found
