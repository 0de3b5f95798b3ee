"""Several processes: start-up if a cluster is detected, work of the first process alone, results on every host."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from modjax.errors import InputError

MESSAGE = 1000  # bytes of an error that processes tell each other


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
    """Whether this process is the first one, which alone writes files; a single process touches no device for it."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def from_first(work: Callable[[], Any]) -> Any:
    """The result of `work` on the first process, returned on every process; the others wait and do not call it.

    All processes then act alike on what the first finds in the shared file system. The result must be a JSON value
    (tuples come back as lists). An InputError of the first is raised on all.
    """
    if not jax.distributed.is_initialized():
        return work()
    answer = {}
    if is_writer():
        try:
            answer = {"found": work()}
        except InputError as error:
            answer = {"error": str(error)}
    answer = json.loads(_broadcast(json.dumps(answer).encode()))
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["found"]


def on_each(work: Callable[[], Any]) -> Any:
    """The result of `work`, which every process does with data of its own; an InputError of one is raised on all."""
    if not jax.distributed.is_initialized():
        return work()
    found, error = None, ""
    try:
        found = work()
    except InputError as raised:
        error = str(raised)
    message = error.encode()[:MESSAGE].ljust(MESSAGE)
    gathered = multihost_utils.process_allgather(np.frombuffer(message, np.uint8))
    for one in np.asarray(gathered).reshape(-1, MESSAGE):
        if error := one.tobytes().decode(errors="ignore").strip():
            raise InputError(error)
    return found


def largest(numbers: Sequence[int]) -> list[int]:
    """The largest of what the processes have, for each of several numbers."""
    found = np.asarray(numbers, np.int32)
    if jax.distributed.is_initialized():
        found = np.asarray(multihost_utils.process_allgather(found)).reshape(-1, len(found)).max(axis=0)
    return found.tolist()


def _broadcast(message: bytes) -> bytes:
    """The message of the first process; its length is sent first, because arrays must have one shape everywhere."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    buffer = np.frombuffer(message.ljust(length, b" ")[:length], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()
