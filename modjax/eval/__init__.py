"""Evaluation: loss, exact match and Rouge-L of any routed library on any tasks."""

from modjax.eval.evaluate import Method, Score, evaluate, summary

__all__ = ["Method", "Score", "evaluate", "summary"]
