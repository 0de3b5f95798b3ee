"""Several processes: start-up if a cluster is detected, work of the first process alone, results on every host."""

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from modjax.errors import Busy, InputError, Stopped

MEETING = 300  # seconds in which all processes must start
HEARTBEAT = 100  # seconds without a sign of life of one process, after which the others end
HEARTBEATS = ("heartbeat_timeout_seconds", "shutdown_timeout_seconds")
LOST = ("Gloo", "NCCL", "coordination", "Coordination")
CARRIED = (InputError, Busy, Stopped, OSError)  # errors of the first process that are raised on all
MESSAGE = 1000  # bytes of an error that processes tell each other


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Starts jax.distributed if this process is one of several, and says so; call it before any device is used.

    jax.distributed finds the other processes itself on Cloud TPU pods, Slurm, Open MPI and Kubernetes. The environment
    of a TPU VM does not show that the VM is part of a pod, so the launcher sets MODJAX_DISTRIBUTED=1. Elsewhere the
    arguments say it, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment.

    Args:
      coordinator: "host:port" of the first process; the port must be free.
      processes: their number.
      process: which one this is, from 0.

    Raises InputError if some of the three are given and the others cannot be found, for a process that is not one of
    them, and for a port that is in use.
    """
    given = {
        "coordinator_address": coordinator or environment.get("JAX_COORDINATOR_ADDRESS") or None,
        "num_processes": _whole(processes, "JAX_NUM_PROCESSES", environment),
        "process_id": _whole(process, "JAX_PROCESS_ID", environment),
    }
    asked = None not in given.values() or (coordinator, processes, process) != (None, None, None)
    if jax.distributed.is_initialized() or not (asked or is_one_of_many(environment)):
        return False
    if given["coordinator_address"]:
        _check_address(given["coordinator_address"], given["process_id"])
    limits = {"initialization_timeout": MEETING} | dict.fromkeys(HEARTBEATS, HEARTBEAT)
    try:
        jax.distributed.initialize(**given, **limits)
    except ValueError as error:
        said = ", ".join(f"{name} = {value}" for name, value in given.items())
        raise InputError(f"{said}: {error}; expected all three, with 0 <= process < processes") from error
    return True


def _check_address(address, process):
    _, _, port = address.rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InputError(f"coordinator = {address}: expected HOST:PORT")
    if process == 0:  # which listens there; JAX would crash
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            said = os.strerror(error.errno)
            raise InputError(f"coordinator = {address}: {said}; expected a port that is free") from error


def _whole(given, name, environment):
    """The number given, or that of a variable of the environment; None if there is neither."""
    text = environment.get(name) or None
    if given is not None or text is None:
        return given
    if not text.isdecimal():
        raise InputError(f"{name}={text}: expected a whole number")
    return int(text)


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
    (tuples come back as lists). Errors of CARRIED, such as an InputError or that of a full disk, are raised on all.
    """
    if not jax.distributed.is_initialized():
        return work()
    answer = {}
    if is_writer():
        try:
            answer = {"found": work()}
        except CARRIED as error:
            answer = {"error": _carried(error)}
    answer = json.loads(_broadcast(json.dumps(answer).encode()))
    if "error" in answer:
        number, arguments = answer["error"]
        raise CARRIED[number](*arguments)
    return answer["found"]


def _carried(error: Exception) -> tuple[int, list]:
    """The place of an error's class in CARRIED, and its arguments."""
    number = next(number for number, kind in enumerate(CARRIED) if isinstance(error, kind))
    if isinstance(error, OSError):
        return number, [error.errno, error.strerror or str(error), os.fspath(error.filename or "")]
    return number, [str(error)]


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone, as Gloo, NCCL and JAX's coordination service put it."""
    return jax.distributed.is_initialized() and any(name in str(error) for name in LOST)


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
