"""Routers: functions that weigh the experts per token, per example or per prompt. One file per router."""

import importlib

from modjax.routing.arrow import Arrow, arrow
from modjax.routing.base import Bound, Context, Router, check, hook, load_router, named, per_site, static
from modjax.routing.calibration import calibrate
from modjax.routing.centroid import Centroid, centroid
from modjax.routing.confident import Confident, confident
from modjax.routing.editing import extended, restricted
from modjax.routing.gates import PhatGoose
from modjax.routing.lag import Lag, lag
from modjax.routing.logo import Logo, logo
from modjax.routing.oracle import Oracle, oracle
from modjax.routing.poly import Poly
from modjax.routing.pooled import Pooled, pooled
from modjax.routing.prompt import PromptRouter, PromptRows, Settled, routed, settle
from modjax.routing.seqr import Seqr, seqr
from modjax.routing.spectr import Spectr, spectr
from modjax.routing.task_predictor import TaskPredictor, task_predictor
from modjax.routing.task_representations import TaskRepresentations, task_representations
from modjax.routing.top_k import top_k_softmax
from modjax.routing.two_stage import TwoStage, two_stage
from modjax.routing.uniform import Uniform, uniform

__all__ = [
    "Arrow",
    "Bound",
    "Centroid",
    "Confident",
    "Context",
    "Lag",
    "Logo",
    "Oracle",
    "PhatGoose",
    "Poly",
    "Pooled",
    "PromptRouter",
    "PromptRows",
    "Router",
    "Seqr",
    "Settled",
    "Spectr",
    "TaskPredictor",
    "TaskRepresentations",
    "TwoStage",
    "Uniform",
    "arrow",
    "calibrate",
    "centroid",
    "check",
    "confident",
    "extended",
    "hook",
    "lag",
    "load_router",
    "logo",
    "named",
    "oracle",
    "per_site",
    "phatgoose",
    "pooled",
    "restricted",
    "routed",
    "seqr",
    "settle",
    "spectr",
    "static",
    "task_predictor",
    "task_representations",
    "top_k_softmax",
    "two_stage",
    "uniform",
]

# Routers that are trained live in modjax.train, which imports routing, so they are imported only when asked for.
_TRAINED = {"phatgoose": "modjax.train.gates"}


def __getattr__(name):
    if name not in _TRAINED:
        raise AttributeError(f"module 'modjax.routing' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_TRAINED[name]), name)
    return value
