"""The benchmark of prefill and decoding on a tiny model. No timing is asserted."""

import functools

import base_speed
import jax.numpy as jnp
import ours
import peer
import pytest

import modjax

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def model(tiny_folder):
    return modjax.load(tiny_folder, dtype=jnp.float32)


@pytest.fixture(scope="module")
def base(model, tiny_folder):
    return ours.Side(model), peer.Side(peer.base(tiny_folder))


def test_prefill_gives_the_same_logits(base):
    found = base_speed.prefill(*base, batches=[2], length=16, repeats=1)[2]
    assert found["largest_difference_of_logits"] < 1e-5
    assert found["ratio"] == pytest.approx(found["modjax"]["per_second"] / found["transformers"]["per_second"])


def test_answers_are_the_same_tokens(base, model, tiny_folder, tmp_path):
    library = ours.random_library(model.config, 5)
    library.save(tmp_path / "library")
    sides = {
        "modjax": base[0].decode,
        "transformers dynamic": base[1].decode,
        "transformers static": functools.partial(base[1].decode, cache="static"),
        "modjax arrow 5": ours.Side(model, library).decode,
        "peft arrow 5": peer.Side(peer.with_arrow(peer.base(tiny_folder), tmp_path / "library", ours.TOP_K)).decode,
    }
    found = base_speed.decode(sides, batches=[2], new=4, repeats=1)[2]
    assert found["same_answers"]
    plain, routed, beside = (found[side]["per_second"] for side in ("modjax", "modjax arrow 5", "peft arrow 5"))
    assert found["routed_over_base"] == {"modjax arrow 5": pytest.approx(routed / plain)}
    assert found["ratio_routed"] == {"modjax arrow 5": pytest.approx(routed / beside)}
    assert all(len(answer.split()) == 4 for answer in sides["peft arrow 5"](ours.random_tokens(2, 8), 4))
