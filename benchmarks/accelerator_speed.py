"""The parts of `accelerator.py` that measure speed and memory beside transformers and peft."""

import functools
import gc
import pathlib
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

import arrow_forward
import base_speed
import choices
import jax
import jax.numpy as jnp
import library_training
import measuring
import ours
import peer
import torch
import train_throughput
from accelerator_sizes import Sizes, config, instructions, model_of, torch_model

import modjax
from modjax.train.settings import Settings


def ceilings(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """What the device gives at most: operations per second of a large product, bytes per second of a large copy."""
    yield "flops_bfloat16", measuring.matmul_peak(jnp.bfloat16, sizes.matrix)
    yield "flops_float32", measuring.matmul_peak(jnp.float32, sizes.matrix // 2)
    yield "bytes", measuring.copy_peak(sizes.matrix**2)


def library(sizes: Sizes, name: str) -> Iterator[tuple[str, Any]]:
    """Training a library against peft, and its share of the peak."""
    model, (experts, rows, length) = model_of(sizes, name), sizes.library[name]
    examples = instructions(model.config.V, experts, rows, length)
    settings = Settings(steps=rows, batch=1, length=length, dropout=0.0, sites=ours.SITES)
    sides = {"modjax": library_training.Modjax(model.params, examples, settings)}
    sides["modjax"]()
    yield "peak_mib", peak_mib()
    found = statistics.median(measuring.in_turn(sides, sizes.repeats)["modjax"])
    yield from train_throughput.speed(model.config, sides["modjax"].batches, found, sizes.matrix).items()
    sides["peft"] = library_training.Peft(torch_model(sizes, name), examples, settings)
    one = next(iter(examples))
    torch_peak = peer.peak_mib(lambda: sides["peft"].train(one, examples[one]))  # warms up as well
    yield "peft_peak_mib_of_one_expert", torch_peak
    yield "comparison", library_training.compared(sides, examples, 1)


def arrow(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Reading a prompt with Arrow over the base, and the temporary memory over its; and peft's Arrow over its base."""
    for name in sizes.models:
        model = model_of(sizes, name)
        tokens_BT = ours.random_tokens(1, sizes.prompt, model.config.V)
        base = ours.Side(model)
        for experts in sizes.experts:
            routed = ours.Side(model, ours.random_library(model.config, experts))
            found = arrow_forward.against_base(
                {"base": base.prefill, "routed": routed.prefill}, sizes.repeats, tokens_BT
            )
            memory = routed.temporary_mib(tokens_BT) / base.temporary_mib(tokens_BT)
            yield f"{name} {experts}", found | {"temporary_memory": memory}
        del model, base, routed
        free()
        sides = {"base": peer.Side(torch_model(sizes, name)), "routed": peer.Side(peer_arrow(sizes, name))}
        runs = {side: own.prefill for side, own in sides.items()}
        yield f"{name} {sizes.peer_experts} peft", arrow_forward.against_base(runs, sizes.repeats, tokens_BT)
        del sides, runs
        free()


def peer_arrow(sizes: Sizes, name: str):
    with tempfile.TemporaryDirectory() as folder:
        ours.random_library(config(sizes, name), sizes.peer_experts).save(folder + "/library")
        return peer.with_arrow(torch_model(sizes, name), pathlib.Path(folder) / "library", ours.TOP_K)


def decoding(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Greedy decoding of the base and with Arrow, against transformers and peft, and the share of the bandwidth."""
    bandwidth = measuring.copy_peak(sizes.matrix**2)
    for name in sizes.models:
        model = model_of(sizes, name)
        their_base = peer.Side(torch_model(sizes, name))
        sides = {
            "modjax": ours.Side(model).decode,
            "transformers dynamic": their_base.decode,
            "transformers static": functools.partial(their_base.decode, cache="static"),
            f"peft arrow {sizes.peer_experts}": peer.Side(peer_arrow(sizes, name)).decode,
        }
        for experts in sizes.experts:
            library = ours.random_library(model.config, experts)
            sides[f"modjax arrow {experts}"] = ours.Side(model, library).decode
        found = base_speed.decode(sides, list(sizes.batches), sizes.new, sizes.repeats, model.config.V)
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
        for batch, figures in found.items():
            steps = figures["modjax"]["per_second"] / batch
            yield f"{name} batch {batch}", figures | {"share_of_bandwidth": weights * steps / bandwidth}
        del model, their_base, sides
        free()


def prefilling(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Reading prompts with the base, against transformers."""
    for name in sizes.models:
        sides = ours.Side(model_of(sizes, name)), peer.Side(torch_model(sizes, name))
        yield name, base_speed.prefill(*sides, [1, 4], sizes.prompt, sizes.repeats, config(sizes, name).V)
        del sides
        free()


def choosing(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Likelihoods of the choices of questions, against one row per choice."""
    args = choices.arguments([f"--questions={sizes.questions}"])
    for name in sizes.models:
        model = model_of(sizes, name)
        examples = [one._replace(tokens=one.tokens % model.config.V) for one in choices.choices(args)]
        runs = {
            "modjax": choices.likelihoods(model, examples, 64),
            "transformers": choices.padded_likelihoods(torch_model(sizes, name), examples, 64),
        }
        yield name, choices.compared(runs, sizes.questions, sizes.repeats)
        del model, runs
        free()


def clustering(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Prototypes and MBC of a library of the size for Phi-2, rank 4 on q, k, v, o; the first run compiles."""
    library = ours.random_library(config(sizes, "phi2"), sizes.clustered)
    runs = {
        "prototypes": lambda: jax.block_until_ready(modjax.routing.arrow(library).prototypes),
        "mbc": lambda: modjax.cluster.mbc(library, min(10, sizes.clustered)).labels,
    }
    yield "seconds_first", {side: measuring.timed(run)[0] for side, run in runs.items()}
    yield "seconds", {side: statistics.median(own) for side, own in measuring.in_turn(runs, sizes.repeats).items()}


def peak_mib() -> float | None:
    """Memory of the device that JAX has held at most so far, in MiB; None where it is not known."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def free() -> None:
    """Gives back what no longer has a name."""
    gc.collect()
    torch.cuda.empty_cache()
