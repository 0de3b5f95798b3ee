"""The benchmark of library training on a tiny model. No timing is asserted."""

import jax.numpy as jnp
import library_training
import numpy as np
import peer
import pytest
import torch

import modjax
from modjax.data.rows import pack
from modjax.data.tokenize import Encoded
from modjax.train.settings import Settings

# peft 0.21 reads a property of transformers 5 by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SETTINGS = Settings(steps=2, batch=1, length=64, dropout=0.0, learning_rate=0.01)


@pytest.fixture(scope="module")
def examples():
    """Two tasks; the examples of each begin with the same ten tokens."""
    rng = np.random.default_rng(0)
    found = {}
    for task in ("one", "two"):
        start = rng.integers(3, 1000, 10)
        own = [Encoded(np.append(start, rng.integers(3, 1000, n)).astype(np.int32), 12) for n in rng.integers(4, 9, 40)]
        found[task] = library_training.filling(own, rows=2, length=SETTINGS.length)
    return found


@pytest.fixture(scope="module")
def sides(tiny_folder, examples):
    decoder = modjax.load(tiny_folder, dtype=jnp.float32).params
    return {
        "modjax": library_training.Modjax(decoder, examples, SETTINGS),
        "peft": library_training.Peft(peer.base(tiny_folder), examples, SETTINGS),
    }


def test_examples_fill_the_rows(examples):
    for own in examples.values():
        assert 16 < len(own) < 40 and pack(own, SETTINGS.length).n_rows == 2


def test_both_sides_have_the_same_loss(sides):
    ours, theirs = (sides[side].loss() for side in ("modjax", "peft"))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_padded_batches_hold_every_target_once(examples):
    own = examples["one"]
    batches = list(library_training.padded_batches(own))
    assert [len(batch["input_ids"]) for batch in batches] == [16, len(own) - 16]
    targets = np.sort(np.concatenate([example.tokens[example.n_prompt :] for example in own]))
    labels = torch.cat([batch["labels"][batch["labels"] >= 0] for batch in batches])
    np.testing.assert_array_equal(np.sort(labels), targets)
    assert sum(int(batch["attention_mask"].sum()) for batch in batches) == sum(len(example.tokens) for example in own)


def test_the_figures(sides, examples):
    found = library_training.compared(sides, examples, repeats=1)
    useful, numbers = found["useful_tokens"], found["examples"]
    assert useful == {name: sum(len(example.tokens) for example in own) for name, own in examples.items()}
    assert found["row_tokens"] < sum(useful.values()) < found["padded_tokens"]
    assert found["ratio"] == pytest.approx(found["modjax"]["per_second"] / found["peft"]["per_second"])
    per_example = {name: seconds[0] / numbers[name] for name, seconds in sides["peft"].seconds.items()}
    ours = sum(useful.values()) / found["modjax"]["per_second"] / 2
    expected = sum(per_example.values()) / sum(ours / number for number in numbers.values())
    assert found["ratio_of_equal_numbers"] == pytest.approx(expected)


def test_both_sides_train(sides):
    """peft's adapters are no longer those they started as."""
    sides["peft"]()
    changed = [float(p.detach().abs().max()) for name, p in sides["peft"].model.named_parameters() if "lora_B" in name]
    assert min(changed) > 0
