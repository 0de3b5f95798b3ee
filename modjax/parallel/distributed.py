"""Several processes: start-up if a cluster is detected, and gathering of sharded arrays on every host."""

import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Starts jax.distributed if this process is one of several; call it before any device is used.

    jax.distributed finds the coordinator itself on Cloud TPU pods, Slurm, Open MPI and Kubernetes; this function only
    decides whether to start it. The environment of a TPU VM does not show that the VM is part of a pod, so the launcher
    sets MODJAX_DISTRIBUTED=1.
    """
    if is_one_of_many(environment) and not jax.distributed.is_initialized():
        jax.distributed.initialize()


def is_one_of_many(environment: Mapping[str, str]) -> bool:
    """Whether the environment variables of the launcher indicate more than one process."""
    counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES", "MEGASCALE_NUM_SLICES")
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    requested = environment.get("MODJAX_DISTRIBUTED") == "1"
    return requested or len(workers) > 1 or any(int(environment.get(name) or 1) > 1 for name in counts)


def gather(tree: Any) -> Any:
    """The tree with its complete arrays as NumPy arrays, on every process."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def is_writer() -> bool:
    """Whether this process is the first one, which alone writes files."""
    return jax.process_index() == 0
