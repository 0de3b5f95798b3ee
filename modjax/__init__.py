"""modjax: libraries of LoRA experts over one frozen language model, and routers between them."""

import importlib

__version__ = "0.1.0"

# Public names by the module that holds them. They are imported on first use, so that importing modjax costs
# next to nothing.
_MODULES = {
    "load": "modjax.model",
    "Model": "modjax.model",
    "Library": "modjax.experts.library",
    "PagedLibrary": "modjax.experts.paged",
    "LoRA": "modjax.ops.lora",
    "ExpertInfo": "modjax.experts.library",
    "evaluate": "modjax.eval.evaluation",
    "train_library": "modjax.train.lora",
    "InputError": "modjax.errors",
}
_PACKAGES = (
    *("adapt", "cluster", "data", "eval", "experts", "merge", "models", "ops", "parallel", "report", "routing"),
    *("studies", "train"),
)

__all__ = [*_MODULES, *_PACKAGES]


def __getattr__(name):
    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"modjax.{name}")
    else:
        raise AttributeError(f"module 'modjax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
