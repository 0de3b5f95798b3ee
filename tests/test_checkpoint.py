"""Checkpoints: the newest is restored with its shardings, and unusable ones raise clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from modjax.checkpoint import Checkpoints
from modjax.errors import InputError
from modjax.ops.lora import LoRA
from modjax.parallel.mesh import make_mesh


def state(factor=1.0, width=4):
    a, b = factor * jnp.arange(2.0 * 4 * width).reshape(2, 4, width), jnp.full((2, 4), factor, jnp.bfloat16)
    return {"loras": LoRA(a, b, jnp.full((2, 4), 2.0)), "step": jnp.int32(factor), "best": None}


def save(path, last=4, every=1):
    with Checkpoints(path, every) as checkpoints:
        for step in range(1, last + 1):
            checkpoints.save(step, state(step))


def test_without_a_checkpoint_the_state_is_given_back(tmp_path):
    mine = state()
    with Checkpoints(tmp_path / "none", 1) as checkpoints:
        assert checkpoints.restore(mine) is mine


def test_the_newest_comes_back(tmp_path):
    save(tmp_path)
    with Checkpoints(tmp_path, 1) as checkpoints:
        found = checkpoints.restore(state())
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(state(4)), strict=True):
        assert leaf.dtype == expected.dtype
        np.testing.assert_array_equal(leaf, expected)
    assert found["best"] is None


def test_the_last_two_are_kept(tmp_path):
    save(tmp_path, last=5)
    assert {path.name for path in tmp_path.iterdir()} == {"4", "5"}


def test_only_steps_of_the_interval_are_saved(tmp_path):
    save(tmp_path, last=5, every=2)
    assert {path.name for path in tmp_path.iterdir()} == {"2", "4"}


def test_arrays_come_back_onto_the_shardings_asked_for(tmp_path):
    save(tmp_path)
    mesh = make_mesh(expert=4, fsdp=2)
    along = NamedSharding(mesh, jax.P(None, "expert"))
    mine = state() | {"loras": jax.device_put(state()["loras"], along)}
    with Checkpoints(tmp_path, 1) as checkpoints:
        found = checkpoints.restore(mine)["loras"]
    assert found.a.sharding == along and found.b.sharding == along
    np.testing.assert_array_equal(found.a, state(4)["loras"].a)


def test_the_arrays_may_be_donated_once_save_returns(tmp_path):
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Checkpoints(tmp_path, 1) as checkpoints:
        x = jnp.zeros(1000)
        for step in range(1, 4):
            checkpoints.save(step, {"x": x})
            x = add(x)
    with Checkpoints(tmp_path, 1) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore({"x": x})["x"], 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (state(width=5), r"checkpoint 4 has loras\.a \(2, 4, 4\), this run's is \(2, 4, 5\)"),
        (state() | {"best": jnp.zeros(3)}, r"has best missing, this run's is \(3,\)"),
        ({"loras": state()["loras"]}, r"has step \(\), this run's is missing"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_in_words(tmp_path, other, message):
    save(tmp_path)
    with Checkpoints(tmp_path, 1) as checkpoints, pytest.raises(InputError, match=message):
        checkpoints.restore(other)


def test_a_damaged_checkpoint_is_named(tmp_path):
    save(tmp_path)
    (tmp_path / "4" / "state" / "_METADATA").write_text("{")
    with Checkpoints(tmp_path, 1) as checkpoints, pytest.raises(InputError, match="checkpoint 4 cannot be read"):
        checkpoints.restore(state())
