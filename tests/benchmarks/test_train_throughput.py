"""The throughput benchmark on a tiny model: both sides train the same experts. No timing is asserted."""

import importlib.util
import json
import mmap
import pathlib

import numpy as np
import pytest

from modjax.data import loader
from modjax.data.pack import pack
from modjax.data.tokenize import Encoded
from modjax.models import hf
from modjax.train.settings import Settings

# peft 0.21 reads a property of transformers 5 by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "train_throughput.py"
EXPERTS = 3
SETTINGS = Settings(steps=4, batch=2, length=48, dropout=0.0, learning_rate=0.03)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("train_throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def batches():
    """Packed rows of several examples, with padding after them."""
    rng = np.random.default_rng(0)
    rows = {}
    for expert in range(EXPERTS):
        lengths = rng.integers(8, 30, 12)
        examples = [Encoded(rng.integers(3, 61, n).astype(np.int32), int(n) // 2) for n in lengths]
        rows[f"task{expert}"] = pack(examples, SETTINGS.length)
    return list(loader.batches(rows, SETTINGS.batch, SETTINGS.steps, SETTINGS.seed))


@pytest.fixture(scope="module")
def runs(benchmark, path, batches):
    import torch

    factors = benchmark.initial_factors(hf.config(path), EXPERTS, SETTINGS)
    built = {side: build(path, factors, SETTINGS, batches) for side, build in benchmark.BUILD.items()}
    torch.set_num_threads(1)  # the benchmark takes a thread per core; on so small a model they wait for each other
    return built


def test_rows_are_packed_and_padded(batches):
    segments = np.stack([batch.segments for batch in batches])
    assert segments.max() > 1
    assert (segments == 0).any()


def test_losses_agree_at_every_step(runs):
    losses = {side: run() for side, run in runs.items()}
    assert losses["modjax"].shape == losses["peft"].shape == (SETTINGS.steps, EXPERTS)
    np.testing.assert_allclose(losses["modjax"], losses["peft"], atol=1e-4)
    assert np.abs(losses["modjax"][-1] - losses["modjax"][0]).min() > 1e-2, "the experts moved"


def test_a_run_starts_from_the_beginning(runs):
    for run in runs.values():
        np.testing.assert_array_equal(run(), run())


def test_the_figures(benchmark, runs):
    result = json.loads(json.dumps(benchmark.compare(runs, tokens=100, repeats=3)))
    assert result["ratio"] == result["modjax"]["tokens_per_second"] / result["peft"]["tokens_per_second"]
    assert result["loss_difference_first_step"] < 1e-3
    assert len(result["peft"]["runs"]) == 3
    assert sorted(result["peft"]["runs"])[1] == result["peft"]["tokens_per_second"]


def test_the_machine_is_named(benchmark):
    found = benchmark.machine()
    assert found["cpu_count"] >= 1
    assert {"jax", "torch", "peft", "modjax"} <= set(found["versions"])


def test_memory_is_what_the_run_added(benchmark):
    held = []

    def run():
        pages = np.frombuffer(mmap.mmap(-1, 16 * 2**20), np.uint8)  # not of the heap, which may have room for them
        pages.fill(1)
        held.append(pages)

    assert 30 < benchmark.peak_memory(lambda: run) < 100, "two runs that keep 16 MiB each"
