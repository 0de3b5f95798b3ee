"""Many processes: start-up where a cluster is found, and bringing sharded results to every host."""

import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes when this one was launched as one of several; call before any use of a device.

    jax.distributed finds the coordinator by itself on Cloud TPU pods, Slurm, Open MPI and Kubernetes; here it is
    only decided whether there is anything to join. A TPU VM shows no sign of its pod in the environment, so the
    launcher says it: MODJAX_DISTRIBUTED=1.
    """
    if is_one_of_many(environment) and not jax.distributed.is_initialized():
        jax.distributed.initialize()


def is_one_of_many(environment: Mapping[str, str]) -> bool:
    """Whether the launcher's variables speak of more than one process."""
    counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES", "MEGASCALE_NUM_SLICES")
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    told = environment.get("MODJAX_DISTRIBUTED") == "1"
    return told or len(workers) > 1 or any(int(environment.get(name) or 1) > 1 for name in counts)


def gather(tree: Any) -> Any:
    """The whole arrays as NumPy, on every process."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def is_writer() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0
