"""modjax: libraries of LoRA experts over one frozen language model, and routers between them."""

import importlib

__version__ = "0.1.0"

# Public names by the module that holds them. They are imported on first use, so that importing modjax costs
# next to nothing.
_MODULES = {
    "load": "modjax.model",
    "Model": "modjax.model",
    "Library": "modjax.experts.library",
    "LoRA": "modjax.ops.lora",
    "ExpertInfo": "modjax.experts.library",
    "train_library": "modjax.train.loop",
    "InputError": "modjax.errors",
}
_ALIASES = {"cluster": "modjax.experts.cluster", "merge": "modjax.experts.merge"}
_PACKAGES = ("adapt", "data", "experts", "eval", "models", "ops", "parallel", "report", "routing", "train")

__all__ = [*_MODULES, *_ALIASES, *_PACKAGES]


def __getattr__(name):
    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    elif name in _ALIASES or name in _PACKAGES:
        value = importlib.import_module(_ALIASES.get(name, f"modjax.{name}"))
    else:
        raise AttributeError(f"module 'modjax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
