"""Evaluation: loss and answers of any routed library on any tasks, how certain the scores are, and their cost."""

import importlib

# Public names by the module that holds them, imported on first use, so that importing modjax.eval is fast.
_MODULES = {
    "Analysis": "modjax.eval.analysis",
    "analyse": "modjax.eval.analysis",
    "BenchmarkSettings": "modjax.eval.benchmarks.scoring",
    "BENCHMARKS": "modjax.eval.benchmarks.catalogue",
    "benchmark": "modjax.eval.benchmarks.scoring",
    "Comparison": "modjax.eval.comparison",
    "compare": "modjax.eval.comparison",
    "Cost": "modjax.eval.cost",
    "measure": "modjax.eval.cost",
    "Method": "modjax.eval.method",
    "Limits": "modjax.eval.execution",
    "Metric": "modjax.metrics",
    "Result": "modjax.eval.benchmarks.result",
    "Sample": "modjax.eval.sample",
    "Score": "modjax.eval.score",
    "evaluate": "modjax.eval.evaluation",
    "summary": "modjax.eval.score",
}

__all__ = [*_MODULES]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__():
    return sorted([*globals(), *__all__])
