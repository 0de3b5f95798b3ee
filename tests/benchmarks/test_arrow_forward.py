"""The benchmark of routing on a tiny model. No timing is asserted."""

import arrow_forward
import jax.numpy as jnp
import ours
import pytest

import modjax

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_the_figures_are_those_of_the_routed_model_over_the_base():
    model = arrow_forward.wide(arrow_forward.WIDE | {"D": 32, "H": 4, "F": 32, "rope_dim": 4})
    library = ours.random_library(model.config, 5, 2, tuple(model.config.sites))
    found = arrow_forward.compared(ours.Side(model), ours.Side(model, library), 512, 16, 4, [2], repeats=1)
    for figures in (found["forward"], found["decode_2"]):
        base, routed = (figures["seconds"][side][0] for side in ("base", "routed"))
        assert figures["routed_over_base"] == pytest.approx(routed / base)
    assert found["decode_2"]["speed_over_base"] == pytest.approx(1 / found["decode_2"]["routed_over_base"])
    assert found["temporary_memory"] > 1


def test_peft_reads_with_experts_and_without(tiny_folder):
    model = modjax.load(tiny_folder, dtype=jnp.float32)
    library = ours.random_library(model.config, 5)
    found = arrow_forward.of_peft(tiny_folder, library, length=16, repeats=1)
    assert set(found["seconds"]) == {"base", "routed"} and found["routed_over_base"] > 0
