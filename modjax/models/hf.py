"""Hugging Face checkpoints: a directory with config.json and safetensors files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.files import read_json_object
from modjax.models import safetensors_file
from modjax.models.assembly import Layout
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.families.multimodal import MULTIMODAL
from modjax.models.hf_names import MODULES, VISION, current, rows
from modjax.models.weights import Source, fill

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]
# Masks and tables that some files contain although the config determines them.
BUFFERS = r".*\.rotary_emb\.inv_freq|.*\.(attn|attention)\.(masked_)?bias"


def find(name: str) -> pathlib.Path:
    """The directory of a model: `name` itself, else its snapshot in the Hugging Face cache, else a new download.

    Raises InputError, saying how to get the model, if it is neither local nor can be downloaded.
    """
    if os.path.isdir(name):  # false, not an error, for a name that no file system takes
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
            f"{name}: not a directory, not in the local Hugging Face cache, and the download failed with "
            f"{type(error).__name__}. Run `hf download {name}` on a machine with network access, then copy the cache "
            "or pass the directory"
        ) from error


def config(path: str | pathlib.Path) -> ModelConfig:
    """The config of the checkpoint in a directory; raises InputError as ModelConfig.from_hf does."""
    file = pathlib.Path(path) / "config.json"
    return ModelConfig.from_hf(read_json_object(file), str(file))


def read(
    path: str | pathlib.Path,
    dtype: jnp.dtype = jnp.float32,
    layout: Layout | None = None,
    quantize: str | None = None,
) -> Decoder:
    """The decoder in a directory with config.json and model.safetensors, or shards and their index.

    dtype: dtype of the loaded weights, whatever the file has. layout, quantize: see modjax.models.weights.fill.
    Raises InputError naming file, key and shape for tensors that are missing, unexpected or of another shape.
    """
    path = pathlib.Path(path)
    chosen = config(path)
    chosen, source = _with_head(chosen, _source(path, chosen.family))
    return fill(chosen, rows(chosen), source, dtype, layout, quantize)


def _with_head(chosen: ModelConfig, source: Source) -> tuple[ModelConfig, Source]:
    """The config without `tied` if the file has a head that differs from the embedding, as transformers decides."""
    embed, head = (f"{MODULES[chosen.family][part]}.weight" for part in ("embed", "head"))
    if not chosen.tied or not {embed, head} <= set(source.names):
        return chosen, source
    if np.array_equal(source.read(embed), source.read(head)):
        return chosen, dataclasses.replace(source, ignored=f"{source.ignored}|{re.escape(head)}")
    return dataclasses.replace(chosen, tied=False), source


def _source(path: pathlib.Path, family: str) -> Source:
    files = _files(path)
    held = {name: tensor for file in files for name, tensor in safetensors_file.tensors(path / file).items()}
    stored = _stored_names(held, MODULES[family])
    absent = path / (files[0] if len(files) == 1 else INDEX)
    return Source(
        names=stored,
        shape=lambda name: held[stored[name]].shape,
        read=lambda name: safetensors_file.read(stored[name], held[stored[name]]),
        file=lambda name: str(held[stored[name]].file if name in stored else absent),
        ignored=f"{BUFFERS}|{VISION}" if family in MULTIMODAL else BUFFERS,
    )


def _stored_names(names: Iterable[str], modules: Mapping[str, str]) -> dict[str, str]:
    """{name in the family's table: name in the file}; files of a model saved without its head lack the prefix."""
    body, head = modules["embed"].partition(".")[0] + ".", modules["head"] + "."
    whole = any(current(name).startswith(body) for name in names)

    def by_table(name: str) -> str:
        name = current(name)
        for alias in (head, "lm_head."):
            if name.startswith(alias):
                return head + name.removeprefix(alias)
        return name if whole else body + name

    return {by_table(name): name for name in names}


def _files(path: pathlib.Path) -> list[str]:
    if (path / INDEX).is_file():
        try:
            return sorted(set(read_json_object(path / INDEX)["weight_map"].values()))
        except (KeyError, AttributeError) as error:
            raise InputError(f"{path / INDEX}: has no 'weight_map'; expected {{tensor name: file}} there") from error
    if (path / SINGLE).is_file():
        return [SINGLE]
    if list(path.glob("*.bin")):
        raise InputError(
            f"{path}: holds only pickled weights (.bin), which modjax does not open, as they can run code. If you "
            "trust them, convert them: transformers' from_pretrained(DIR).save_pretrained(NEW_DIR) writes safetensors"
        )
    raise InputError(f"{path}: found neither {SINGLE} nor {INDEX}; expected one of them")
