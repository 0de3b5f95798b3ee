"""Compiled programs: on disk, so that none is compiled twice on a machine; in memory, so that they are not too many."""

import hashlib
import os
import pathlib
import platform
from collections.abc import Mapping

import jax

LEAST = 0.2  # seconds of compilation; what compiles faster is not kept
MAPS = pathlib.Path("/proc/self/maps")  # a line for each memory map of this process
MOST_MAPS = pathlib.Path("/proc/sys/vm/max_map_count")  # that Linux allows a process


def keep() -> None:
    """Keeps compiled programs in `folder()`, unless the user has chosen a folder for JAX or turned its cache off.

    JAX_COMPILATION_CACHE_DIR (or jax.config's jax_compilation_cache_dir) names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false turns the cache off. If the folder cannot be written, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return
    try:
        path = folder()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return
    if os.access(path, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST)


def trim() -> None:
    """Drops all compiled programs from memory if this process has half of the memory maps that Linux allows it.

    A program for a CPU takes tens of maps, and XLA ends the process when there are none left. Programs that are needed
    again are compiled again, or read from disk.
    """
    if MAPS.exists() and MOST_MAPS.exists() and MAPS.read_bytes().count(b"\n") > int(MOST_MAPS.read_text()) // 2:
        jax.clear_caches()


def folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
    """The folder of this kind of machine in the user's cache.

    Programs for a CPU use its instructions, and several kinds of machines may share one home.
    """
    root = environment.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "modjax" / f"{platform.machine()}-{_features()}"


def _features():
    """Eight hexadecimal digits of the instructions that the CPU has, as Linux lists them."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n") if cpuinfo.exists() else [platform.processor()]
    listed = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(listed.encode()).hexdigest()[:8]
