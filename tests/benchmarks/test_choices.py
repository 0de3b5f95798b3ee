"""The benchmark of choices on a tiny model. No timing is asserted."""

import choices
import jax.numpy as jnp
import peer
import pytest

import modjax


@pytest.fixture(scope="module")
def examples():
    return choices.choices(choices.arguments(["--small"]))


def test_choices_share_their_question(examples):
    assert len(examples) == 12
    for start in range(0, 12, 4):
        own = examples[start : start + 4]
        assert len({example.tokens[: example.n_prompt].tobytes() for example in own}) == 1
        assert len({example.tokens.tobytes() for example in own}) == 4


def test_both_sides_give_the_same_losses(tiny_folder, examples):
    runs = {
        "modjax": choices.likelihoods(modjax.load(tiny_folder, dtype=jnp.float32), examples, 4),
        "transformers": choices.padded_likelihoods(peer.base(tiny_folder), examples, 4),
    }
    found = choices.compared(runs, questions=3, repeats=1)
    assert found["largest_difference"] < 1e-6 * found["mean_loss_of_a_choice"]
    assert found["ratio"] == pytest.approx(found["modjax"]["per_second"] / found["transformers"]["per_second"])
