"""Facts about a model, and its tokenizer, without its weights: from this machine, or for known models the package."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING

from modjax import arguments
from modjax.errors import InputError
from modjax.files import is_whole, read_json_object
from modjax.models import gguf, gguf_tokenizer, hf
from modjax.models import tokenizer as tokenizer_files
from modjax.models.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED = "smollm2-135m"
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")  # what config.json calls the number of layers
# What the public config.json of well-known models says of their sizes, each named after its Hugging Face id.
KNOWN = {path.stem: path for path in sorted(pathlib.Path(__file__).with_name("known").glob("*.json"))}


def config(name: str) -> ModelConfig:
    """The config of a model: a directory, a config.json, a .gguf file, a known model, or an id in the local cache.

    Known models are those in KNOWN, by the last part of their id in any case: "microsoft/phi-2" or "phi-2".
    Raises InputError if it is none of them, and as ModelConfig.from_hf does.
    """
    arguments.path("model", name)
    if name.endswith(".gguf"):
        return gguf.config(name)
    file = name if name.endswith(".json") else _config_file(name) or KNOWN.get(name.rpartition("/")[2].lower())
    if file is None:
        raise InputError(
            f"{name}: no directory with config.json, no known model and not in the local Hugging Face cache; expected "
            f"one of these, or the path of a config.json; known are {', '.join(KNOWN)}"
        )
    return ModelConfig.from_hf(read_json_object(file), str(file))


def layers(name: str) -> int | None:
    """The number of layers of a model: a directory, a .gguf file, "smollm2-135m", or an id in the Hugging Face cache.

    None if the model is not on this machine, or does not say.
    """
    if not name:
        return None
    with contextlib.suppress(InputError):
        if name == EMBEDDED or name.endswith(".gguf"):
            return gguf.config(gguf.embedded() if name == EMBEDDED else name).L
        found = _config_file(name)
        return None if found is None else _layers(read_json_object(found))
    return None


def tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: a directory, a .gguf file, "smollm2-135m", or an id on the hub.

    Raises InputError if the model is not to be had, or has no tokenizer.
    """
    arguments.path("model", name)
    if name == EMBEDDED or name.endswith(".gguf"):
        return gguf_tokenizer.read(gguf.embedded() if name == EMBEDDED else pathlib.Path(name))
    found = tokenizer_files.from_directory(hf.find(name))
    if found is None:
        raise InputError(f"{name}: the checkpoint has no tokenizer; expected one, to read text")
    return found


def _config_file(name) -> str | pathlib.Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(OSError, ValueError):
        if (file := pathlib.Path(name) / "config.json").is_file():
            return file
    with contextlib.suppress(HFValidationError):
        cached = try_to_load_from_cache(name, "config.json")
        return cached if isinstance(cached, str) else None
    return None


def _layers(config) -> int | None:
    for part in (config, config.get("text_config")):
        for key in LAYERS:
            if isinstance(part, dict) and is_whole(part.get(key)) and part[key] > 0:
                return part[key]
    return None
