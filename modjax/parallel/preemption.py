"""SIGTERM, which launchers send some time before they end a process: a run saves its state and stops."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def watched() -> Iterator[Callable[[int], bool]]:
    """A function to call after every step: whether the run must stop now.

    It gets the number of the step, and gives the same on all processes: one that gets SIGTERM tells the others. Within
    the context SIGTERM does not end a process; outside the main thread of a single process it does.
    """
    if jax.distributed.is_initialized():
        yield multihost_utils.reached_preemption_sync_point
    elif threading.current_thread() is not threading.main_thread():
        yield lambda step: False
    else:
        received = threading.Event()
        before = signal.signal(signal.SIGTERM, lambda *_: received.set())
        try:
            yield lambda step: received.is_set()
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
