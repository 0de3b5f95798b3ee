"""The rows whose activations training holds at a time, chosen by the memory there is."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from modjax.data.rows import Rows
from modjax.files import read_json_object, write_json
from modjax.models.decoder import Decoder
from modjax.parallel import distributed
from modjax.train.micro import Groups
from modjax.train.recipe import Recipe, member_axis
from modjax.train.settings import Settings
from modjax.train.step import member_sums

CHOICE = "micro.json"  # in the workdir: a resumed run has the same groups, because the last bits depend on them
SHARE = 0.5  # of the free memory; the rest is for what one layer needs while it runs, and for the optimizer
CPU_TOKENS = 1024  # per group on a CPU: groups of 2048 ran slower there than groups of 256 to 1024


def settled(settings: Settings, folder: pathlib.Path | None, choose: Callable[[], dict[str, Any]]) -> Settings:
    """The settings with `micro`, and `remat`, as `choose` gives them if micro is 0; with a folder, once and for all."""
    if settings.micro:
        return settings

    def kept():
        if folder is None:
            return choose()
        if not (folder / CHOICE).exists():
            write_json(folder / CHOICE, choose())
        return read_json_object(folder / CHOICE)

    return dataclasses.replace(settings, **distributed.from_first(kept))


def choice(
    decoder: Decoder,
    recipe: Recipe,
    trained: Any,
    frozen: Any,
    batch: Rows,
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[str, Any]:
    """{"micro": rows at a time, "remat": whether blocks are recomputed, which is only where one row does not fit}.

    trained, frozen, batch: of all members, or their shapes.
    """
    groups, device = Groups.of(*batch.tokens.shape[:2], 0, mesh), jax.local_devices()[0]
    most, budget = groups.experts * groups.rows, SHARE * free_bytes(device)
    if device.platform == "cpu":
        most = min(most, max(1, CPU_TOKENS // settings.length))

    def fitting(remat):
        held = functools.partial(held_bytes, decoder, recipe, trained, frozen, batch)
        one = held(1, dataclasses.replace(settings, remat=remat))
        if one * most <= budget:  # even if weights are counted for every row
            return most
        return min(most, int(budget // (held(2, dataclasses.replace(settings, remat=remat)) - one)))

    found = 0 if settings.remat else fitting(False)
    return {"micro": found, "remat": False} if found else {"micro": max(1, fitting(True)), "remat": True}


def held_bytes(
    decoder: Decoder, recipe: Recipe, trained: Any, frozen: Any, batch: Rows, n_rows: int, settings: Settings
) -> int:
    """Bytes that some rows of one member hold from the forward to the backward pass, and their logits.

    They are found without compiling: what the backward pass reads are the arrays of the function that jax.vjp returns.
    Some are weights, whose number does not depend on that of the rows.
    """
    decoder = jax.tree.map(lambda leaf: _shape(leaf.shape, leaf.dtype), decoder)  # without its mesh
    trained, frozen = jax.tree.map(_of_one, (trained, frozen))
    rows = jax.tree.map(lambda field: _shape((1, n_rows, *field.shape[2:]), field.dtype), batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (1, n_rows)))

    def backward(decoder, trained, *own):
        sums = functools.partial(member_sums, recipe=recipe, settings=settings)
        return jax.vjp(lambda trained: sums(decoder, trained, *own), trained)[1]

    held = jax.tree.leaves(jax.eval_shape(backward, decoder, trained, frozen, rows, keys))
    logits = n_rows * min(settings.loss_chunk, batch.labels.shape[-1]) * decoder.config.V * 4
    return sum(map(_bytes, held)) + 3 * logits  # logits, their softmax and gradient


def free_bytes(device: jax.Device) -> int:
    """Memory of a device that is not in use; of a CPU, its share of the memory that this machine has available."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return available() // len(jax.local_devices())


def available() -> int:
    """Bytes of main memory that this process can still get, within the limit of its container if there is one."""
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fields = dict(line.split(":") for line in meminfo.read_text().split("\n") if line)
    found = int(fields["MemAvailable"].split()[0]) * 1024
    group = pathlib.Path("/sys/fs/cgroup")
    limit = group / "memory.max"
    if limit.exists() and limit.read_text().strip().isdigit():
        stat = dict(line.split() for line in (group / "memory.stat").read_text().split("\n") if line)
        # Cached files are given up when memory is needed.
        used = int((group / "memory.current").read_text()) - int(stat["file"])
        found = min(found, int(limit.read_text()) - used)
    return found


def _of_one(leaf):
    """The shape of one member's arrays, with an axis of members of size 1."""
    shape = list(leaf.shape)
    shape[member_axis(leaf)] = 1
    return _shape(shape, leaf.dtype)


def _shape(shape, dtype):
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def _bytes(leaf):
    return leaf.size * (8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.dtype(leaf.dtype).itemsize)
