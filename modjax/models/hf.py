"""Hugging Face checkpoints: a directory with config.json and safetensors files."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any

import jax.numpy as jnp
from safetensors import SafetensorError, safe_open

from modjax.errors import InputError
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.weights import Shard, Source, fill, table

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]
BUFFERS = r".*\.rotary_emb\.inv_freq"

_LAYER = "model.layers.{i}."
_COMMON = {
    "embed": "model.embed_tokens",
    "head": "lm_head",
    "blocks.attn_norm": _LAYER + "input_layernorm",
    "blocks.attn.q": _LAYER + "self_attn.q_proj",
    "blocks.attn.k": _LAYER + "self_attn.k_proj",
    "blocks.attn.v": _LAYER + "self_attn.v_proj",
}
_LLAMA = _COMMON | {
    "final_norm": "model.norm",
    "blocks.attn.o": _LAYER + "self_attn.o_proj",
    "blocks.mlp_norm": _LAYER + "post_attention_layernorm",
    "blocks.mlp.gate": _LAYER + "mlp.gate_proj",
    "blocks.mlp.up": _LAYER + "mlp.up_proj",
    "blocks.mlp.down": _LAYER + "mlp.down_proj",
}
_PHI = _COMMON | {
    "final_norm": "model.final_layernorm",
    "blocks.attn.o": _LAYER + "self_attn.dense",
    "blocks.mlp.fc1": _LAYER + "mlp.fc1",
    "blocks.mlp.fc2": _LAYER + "mlp.fc2",
}
MODULES = {"llama": _LLAMA, "mistral": _LLAMA, "phi": _PHI}


def find(name: str) -> pathlib.Path:
    """The directory of a model: `name` itself, else its snapshot in the Hugging Face cache, else downloaded.

    Raises InputError, with how to get it, when the model is neither here nor reachable.
    """
    if pathlib.Path(name).is_dir():
        return pathlib.Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        with contextlib.suppress(OSError):
            return pathlib.Path(snapshot_download(name, local_files_only=True, allow_patterns=WANTED))
        return pathlib.Path(snapshot_download(name, allow_patterns=WANTED))
    except HFValidationError as error:
        raise InputError(f"{name}: neither a directory nor a model id of the form owner/name") from error
    except OSError as error:
        raise InputError(
            f"{name}: not a directory, not in the local Hugging Face cache, and the hub gave {type(error).__name__}. "
            f"Where there is a network, run `hf download {name}`, then copy the cache or give the directory"
        ) from error


def config(path: str | pathlib.Path) -> ModelConfig:
    """The config of the checkpoint in a directory; InputError as ModelConfig.from_hf."""
    file = pathlib.Path(path) / "config.json"
    return ModelConfig.from_hf(_json(file), str(file))


def read(path: str | pathlib.Path, dtype: jnp.dtype = jnp.float32, shard: Shard | None = None) -> Decoder:
    """The decoder in a directory with config.json and model.safetensors, or its shards and their index.

    dtype: of the weights, whatever the file has. shard: places a finished leaf, (path, numpy array) -> jax array.
    Tensors are read one by one into the stacked leaves, so the host holds one leaf beside what is placed.
    Raises InputError naming file, key and shape for whatever does not fit.
    """
    path = pathlib.Path(path)
    chosen = config(path)
    with contextlib.ExitStack() as stack:
        return fill(chosen, table(MODULES[chosen.family]), _source(path, chosen, stack), dtype, shard)


def _source(path: pathlib.Path, chosen: ModelConfig, stack: contextlib.ExitStack) -> Source:
    opened = {file: stack.enter_context(_open(path / file)) for file in _files(path)}
    holder = {name: file for file, tensors in opened.items() for name in tensors.keys()}  # noqa: SIM118, safe_open is no mapping
    return Source(
        names=holder,
        read=lambda name: _tensor(opened[holder[name]], name, path / holder[name]),
        file=lambda name: str(path / holder.get(name, next(iter(opened)) if len(opened) == 1 else INDEX)),
        ignored=f"{BUFFERS}|lm_head.weight" if chosen.tied else BUFFERS,
    )


def _files(path: pathlib.Path) -> list[str]:
    if (path / INDEX).is_file():
        try:
            return sorted(set(_json(path / INDEX)["weight_map"].values()))
        except (KeyError, AttributeError) as error:
            raise InputError(f"{path / INDEX}: has no 'weight_map' of tensor names to files") from error
    if (path / SINGLE).is_file():
        return [SINGLE]
    if list(path.glob("*.bin")):
        raise InputError(
            f"{path}: holds only pickled weights (.bin), which modjax never opens. Convert them where you trust them: "
            "transformers' from_pretrained(DIR).save_pretrained(NEW_DIR) writes safetensors"
        )
    raise InputError(f"{path}: holds neither {SINGLE} nor {INDEX}")


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{file}: is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: holds {type(found).__name__}, expected an object")
    return found


def _open(file: pathlib.Path) -> safe_open:
    try:
        return safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: is truncated, missing or no safetensors file ({error})") from error


def _tensor(tensors: safe_open, name: str, file: pathlib.Path):
    try:
        return tensors.get_tensor(name)
    except (SafetensorError, TypeError) as error:
        raise InputError(f"{file}: {name!r} cannot be read ({error})") from error
