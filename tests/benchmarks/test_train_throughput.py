"""The throughput benchmark on a tiny model: both sides train the same experts. No timing is asserted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modjax
from modjax.data import loader
from modjax.data.rows import pack
from modjax.data.tokenize import Encoded
from modjax.train.settings import Settings

# peft 0.21 reads a property of transformers 5 by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

EXPERTS = 3
SETTINGS = Settings(steps=4, batch=2, length=48, dropout=0.0, learning_rate=0.03)


@pytest.fixture(scope="module")
def benchmark():
    import train_throughput

    return train_throughput


@pytest.fixture(scope="module")
def batches():
    """Rows of several trees, with padding after them: half of the examples share their first five tokens."""
    rng = np.random.default_rng(0)
    rows = {}
    for expert in range(EXPERTS):
        examples = [Encoded(rng.integers(3, 61, n).astype(np.int32), int(n) // 2) for n in rng.integers(8, 30, 12)]
        for example in examples[::2]:
            example.tokens[:5] = 7
        rows[f"task{expert}"] = pack(examples, SETTINGS.length)
    return list(loader.batches(rows, SETTINGS.batch, SETTINGS.steps, SETTINGS.seed))


@pytest.fixture(scope="module")
def decoder(tiny_folder):
    return modjax.load(tiny_folder, dtype=jnp.float32).params


@pytest.fixture(scope="module")
def runs(benchmark, tiny_folder, decoder, batches):
    import peer

    given = benchmark.initial_factors(decoder.config, EXPERTS, SETTINGS), SETTINGS, batches
    return {
        "modjax": benchmark.modjax_side(decoder, *given),
        "peft": benchmark.peft_side(peer.base(tiny_folder), *given),
    }


def test_rows_branch_and_are_padded(batches):
    ends = np.stack([batch.ends for batch in batches])
    assert (ends == 0).any()
    assert any(len(set(row[row > 0])) > 1 and (np.diff(row[row > 0]) < 0).any() for row in ends.reshape(-1, 48))


def test_losses_agree_at_every_step(runs):
    losses = {side: run() for side, run in runs.items()}
    assert losses["modjax"].shape == losses["peft"].shape == (SETTINGS.steps, EXPERTS)
    np.testing.assert_allclose(losses["modjax"], losses["peft"], atol=1e-4)
    assert np.abs(losses["modjax"][-1] - losses["modjax"][0]).min() > 1e-2, "the experts moved"


def test_a_run_starts_from_the_beginning(runs):
    for run in runs.values():
        np.testing.assert_array_equal(run(), run())


def test_the_figures(benchmark, runs):
    found = benchmark.compare(runs, tokens=100, repeats=3, operations=1e6, peak=1e9)
    result = json.loads(json.dumps(found))
    assert result["loss_difference_first_step"] < 1e-3
    for side in ("modjax", "peft"):
        speed = result[side]["per_second"]
        assert sorted(result[side]["runs"])[1] == speed
        assert result[side]["share_of_peak"] == pytest.approx(speed / 100 * 1e6 / 1e9)
    assert result["ratio"] == pytest.approx(result["modjax"]["per_second"] / result["peft"]["per_second"])


def test_operations_are_counted_token_by_token(benchmark, decoder, batches):
    """Against a plain count: 4 per weight, head and target, and 12 N H per key that a query reads."""
    config, total = decoder.config, 0
    weights = sum(leaf.size for leaf in jax.tree.leaves(decoder.blocks) if leaf.ndim == 3)
    for ends_T in np.concatenate([batch.ends.reshape(-1, SETTINGS.length) for batch in batches]):
        read = sum(j <= i < ends_T[j] for i in range(SETTINGS.length) for j in range(SETTINGS.length))
        total += 4 * weights * (ends_T > 0).sum() + 12 * config.L * config.N * config.H * read
    total += 4 * config.D * config.V * sum(batch.weights.sum() for batch in batches)
    assert benchmark.operations(config, batches) == pytest.approx(total)


def test_the_work_is_that_of_open48(benchmark):
    batches = benchmark.open48_batches(2, Settings(steps=1, batch=1, length=64))
    assert batches[0].tokens.shape == (2, 1, 64) and batches[0].weights.sum() > 0
