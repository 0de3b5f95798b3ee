"""Routers: who answers, for every token at every layer. One file a router."""

from modjax.routing.arrow import Arrow, arrow
from modjax.routing.base import Context, Router, bind, load_router, static, top_k_softmax
from modjax.routing.oracle import Oracle, oracle
from modjax.routing.uniform import Uniform, uniform

__all__ = [
    "Arrow",
    "Context",
    "Oracle",
    "Router",
    "Uniform",
    "arrow",
    "bind",
    "load_router",
    "oracle",
    "static",
    "top_k_softmax",
    "uniform",
]
