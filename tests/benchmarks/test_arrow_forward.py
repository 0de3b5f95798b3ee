"""The benchmark of routed forward passes on a tiny model. No timing is asserted."""

import arrow_forward
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def model():
    return arrow_forward.wide(arrow_forward.WIDE | {"D": 32, "H": 4, "F": 32, "L": 2, "rope_dim": 4})


def test_ratios_are_of_the_measured_seconds(model):
    library = arrow_forward.experts(model.config, tuple(model.config.sites), 5, 2)
    sides = arrow_forward.Side(model), arrow_forward.Side(model, library)
    tokens_BT = arrow_forward.random_tokens(512, 1, 16)
    hidden = [side.forward(side.decoder, side.bound, tokens_BT) for side in sides]
    assert np.abs(jnp.subtract(*hidden)).max() > 1e-3
    found = arrow_forward.compared(*sides, 512, 16, 3, [2], 1)
    for part in (found["forward"], found["decode_2"]):
        assert part["routed_over_base"] == pytest.approx(part["seconds"]["routed"][0] / part["seconds"]["base"][0])
    assert found["decode_2"]["speed_over_base"] == pytest.approx(1 / found["decode_2"]["routed_over_base"])
    assert found["temporary_memory"] > 0
