"""Evaluation: loss and answers of any routed library on any tasks, how certain the scores are, and their cost."""

import importlib

# Public names by the module that holds them, imported on first use: the report reads the metrics without JAX.
_MODULES = {
    "Analysis": "analysis",
    "analyse": "analysis",
    "BenchmarkSettings": "benchmarks.scoring",
    "BENCHMARKS": "benchmarks.catalogue",
    "benchmark": "benchmarks.scoring",
    "Comparison": "comparison",
    "compare": "comparison",
    "Cost": "cost",
    "measure": "cost",
    "Method": "method",
    "Limits": "execution",
    "Metric": "metrics",
    "Result": "benchmarks.result",
    "Sample": "sample",
    "Score": "score",
    "evaluate": "evaluation",
    "summary": "score",
}

__all__ = [*_MODULES]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
