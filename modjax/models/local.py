"""Facts about a model that is on this machine, read without its weights."""

from __future__ import annotations

import contextlib
import pathlib

from modjax.errors import InputError
from modjax.files import is_whole, read_json_object
from modjax.models import gguf

EMBEDDED = "smollm2-135m"
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")  # what config.json calls the number of layers


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
