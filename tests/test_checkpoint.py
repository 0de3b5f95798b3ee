"""Checkpoints: the newest is restored with its shardings, and unusable ones raise clear errors."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from modjax.checkpoint import Checkpoints, _set_aside
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


def restored(path):
    with Checkpoints(path, 1) as checkpoints:
        return checkpoints.restore(state())


def is_of(found, step):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(state(step)), strict=True)
    return all(np.array_equal(leaf, expected) for leaf, expected in pairs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints 3 and 4."""
    path = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(path)
    return path


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(step):
    return sorted(path for path in [*(step / "state").rglob("*"), step / "checksums.json"] if path.is_file())


def flipped(path, place):
    """One bit of the file, at this share of its length, is another one."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << int(8 * place) % 8
    path.write_bytes(content)


FAULTS = {
    "a flipped bit at the start": lambda path: flipped(path, 0),
    "a flipped bit in the middle": lambda path: flipped(path, 0.5),
    "a flipped bit at the end": lambda path: flipped(path, 1),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_any_damaged_file_is_seen_and_the_checkpoint_before_is_taken(copied, fault, tmp_path):
    for number, name in enumerate(path.relative_to(copied) for path in files(copied / "4")):
        path = shutil.copytree(copied, tmp_path / str(number))
        FAULTS[fault](path / name)
        words = r"checkpoint 4 is damaged \(.*\); the run continues from checkpoint 3, and 4\.damaged keeps"
        with pytest.warns(UserWarning, match=words) as warned:
            assert _set_aside(path) is None
        assert name.name in str(warned[0].message) or name.name == "checksums.json"
        assert (path / "4.damaged").is_dir() and not (path / "4").exists()
    assert is_of(restored(path), 3)


@pytest.mark.parametrize("left", [[], ["_CHECKPOINT_METADATA", "commit_success.txt"], ["checksums.json"], ["state"]])
def test_a_newest_checkpoint_without_its_parts_is_left_out(copied, left):
    for path in (copied / "4").iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.warns(UserWarning, match="checkpoint 4 is damaged .* continues from checkpoint 3"):
        assert is_of(restored(copied), 3)
    assert is_of(restored(copied), 3)  # without a warning: it was moved aside


def test_after_a_damaged_checkpoint_its_step_is_saved_again(copied):
    flipped(next((copied / "4" / "state" / "d").iterdir()), 0.5)
    with pytest.warns(UserWarning, match="checkpoint 4 is damaged"), Checkpoints(copied, 1) as checkpoints:
        checkpoints.save(4, state(7))
    assert is_of(restored(copied), 7)
    assert {path.name for path in copied.iterdir()} == {"3", "4", "4.damaged"}


def test_what_a_killed_save_leaves_is_cleared_away(copied):
    (copied / "4").rename(copied / "4.orbax-checkpoint-tmp")
    assert is_of(restored(copied), 3)
    assert {path.name for path in copied.iterdir()} == {"3"}


def test_damaged_checkpoints_alone_are_refused_and_kept(copied):
    for step in ("3", "4"):
        (copied / step / "state" / "_METADATA").write_text("{")
    before = sorted(copied.rglob("*"))
    words = r"none of its checkpoints is sound \(in 4, state/_METADATA is changed\); remove the folder to start"
    with pytest.raises(InputError, match=words):
        Checkpoints(copied, 1)
    assert sorted(copied.rglob("*")) == before
