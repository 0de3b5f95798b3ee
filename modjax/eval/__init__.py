"""Evaluation: loss, exact match and Rouge-L of any routed library on any tasks, how sure and what they cost."""

from modjax.eval.analysis import Analysis, analyse
from modjax.eval.comparison import Comparison, compare
from modjax.eval.cost import Cost, measure
from modjax.eval.evaluate import Method, evaluate
from modjax.eval.score import Score, summary

__all__ = [
    "Analysis",
    "Comparison",
    "Cost",
    "Method",
    "Score",
    "analyse",
    "compare",
    "evaluate",
    "measure",
    "summary",
]
