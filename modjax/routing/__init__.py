"""Routers: who answers, for every token at every layer. One file a router."""

from modjax.routing.arrow import Arrow, arrow
from modjax.routing.base import Context, Router, bind, check, load_router, named, per_site, static, top_k_softmax
from modjax.routing.calibration import calibrate
from modjax.routing.lag import Lag, lag
from modjax.routing.logo import Logo, logo
from modjax.routing.oracle import Oracle, oracle
from modjax.routing.pooled import Pooled, pooled
from modjax.routing.prompt import PromptRouter, PromptRows, Settled, settle
from modjax.routing.seqr import Seqr, seqr
from modjax.routing.spectr import Spectr, spectr
from modjax.routing.tasks import TaskRepresentations, task_representations
from modjax.routing.uniform import Uniform, uniform

__all__ = [
    "Arrow",
    "Context",
    "Lag",
    "Logo",
    "Oracle",
    "Pooled",
    "PromptRouter",
    "PromptRows",
    "Router",
    "Seqr",
    "Settled",
    "Spectr",
    "TaskRepresentations",
    "Uniform",
    "arrow",
    "bind",
    "calibrate",
    "check",
    "lag",
    "load_router",
    "logo",
    "named",
    "oracle",
    "per_site",
    "pooled",
    "seqr",
    "settle",
    "spectr",
    "static",
    "task_representations",
    "top_k_softmax",
    "uniform",
]
