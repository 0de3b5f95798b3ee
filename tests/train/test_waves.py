"""More experts than slots: each is trained as if all were at once, also over kills and on other slots."""

import numpy as np
import pytest

from modjax.data import loader
from modjax.parallel.mesh import make_mesh
from modjax.train import metrics
from modjax.train.examples import MemberRows
from modjax.train.slots import EMPTY, Slots
from tests.meshes import on
from tests.train.test_library import assert_close, equal

HERE = frozenset([0])


def test_slots_are_filled_in_order():
    slots = Slots([HERE] * 2, list(range(5)))
    assert slots.fill() == [0, 1] and slots.expert_S.tolist() == [0, 1]
    slots.advance()
    slots.empty([1])
    assert slots.held == [0] and slots.fill() == [1]
    assert slots.expert_S.tolist() == [0, 2] and slots.steps == {0: 1, 1: 0} and slots.waiting == [3, 4]
    slots.waiting.clear()
    slots.empty([0])
    assert slots.fill() == [] and slots.expert_S.tolist() == [EMPTY, 2]


def test_an_expert_stays_with_the_processes_that_read_its_data():
    there = frozenset([1])
    slots = Slots([HERE, there], list(range(5)))
    slots.fill()
    slots.empty([1])
    assert slots.fill() == [1] and slots.expert_S.tolist() == [0, 3]
    slots.empty([1])
    assert slots.fill() == [] and slots.waiting == [2, 4]
    assert [slots.is_own(expert) for expert in range(5)] == [True, False, True, False, True]


def test_a_process_without_experts_has_rows_without_tokens():
    """As where a mesh has more hosts along `expert` than there are experts."""
    rows = MemberRows({}, {"copy": 3}, 16, 8).of(["copy", " "])
    (batch,) = loader.batches(rows, 2, 1, 0, targets=16)
    assert batch.tokens.shape == (2, 2, 8) and batch.labels.shape == (2, 2, 16)
    assert not batch.ends.any() and not batch.weights.any() and batch.weights.dtype == np.float32
    assert loader.width([]) == 0


def test_slots_are_taken_again_only_where_they_are_the_same():
    slots = Slots([HERE, frozenset([1])], [1, 2, 3])
    assert not slots.take(np.int32([2, 1, 3]))
    assert not slots.take(np.int32([1, 2])) and slots.held == []
    assert slots.take(np.int32([2, EMPTY])) and slots.waiting == [1, 3] and slots.held == [0]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_waves_equal_all_at_once(train, together, slots):
    found = train(slots=slots)
    assert_close(found, together)
    assert found.infos == together.infos


@pytest.mark.slow
def test_256_experts_through_16_slots_equal_256_at_once(train, word_tasks):
    tasks = list(word_tasks)
    groups = {f"expert {number}": (tasks[number % len(tasks)],) for number in range(256)}
    whole, found = (train(groups, steps=3, slots=slots) for slots in (0, 16))
    # Adam divides a gradient by its own size, so that rounding of one near 0 is seen: less than a hundredth of a step.
    assert_close(found, whole, atol=3e-5)
    assert found.infos == whole.infos


STOPPING = {"steps": 16, "learning_rate": 5e-2, "evaluate_every": 2, "patience": 2, "dropout": 0.1}
GROUPS = {"noisy": ("noisy",), "a": ("steady",), "again": ("noisy",), "b": ("steady",), "both": ("steady", "noisy")}


def test_experts_that_stop_early_make_room(train, two_tasks, tmp_path):
    whole = train(GROUPS, tasks=two_tasks, **STOPPING)
    steps = [dict(info.training)["steps"] for info in whole.infos]
    assert min(steps) < max(steps) == 16
    found = train(GROUPS, tasks=two_tasks, slots=2, workdir=tmp_path, **STOPPING)
    assert_close(found, whole, atol=1e-5)
    for info, expected in zip(found.infos, whole.infos, strict=True):
        assert info.training == expected.training
        np.testing.assert_allclose(dict(info.scores)["validation_loss"], dict(expected.scores)["validation_loss"])
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert any(len({line["step"] for line in lines if line["global_step"] == at}) == 2 for at in range(1, 40))
    for info in found.infos:
        steps = [line["step"] for line in lines if info.name in line["loss"]]
        assert steps == list(range(1, dict(info.training)["steps"] + 1))


def test_answers_are_those_of_the_experts_in_the_slots(train, two_tasks):
    settings = {"steps": 4, "evaluate_every": 2, "patience": 1, "stop_by": "rouge_l", "max_new_tokens": 4}
    groups = {"noisy": ("noisy",), "steady": ("steady",), "both": ("steady", "noisy")}
    whole, found = (train(groups, tasks=two_tasks, learning_rate=5e-2, slots=slots, **settings) for slots in (0, 2))
    assert_close(found, whole, atol=1e-5)
    assert found.infos == whole.infos
    assert len({info.scores for info in found.infos}) > 1


@pytest.fixture(scope="module")
def in_twos(train):
    """Four experts in two slots."""
    return train(slots=2)


@pytest.mark.parametrize("slots", [2, 3, 1], ids=["same", "more", "fewer"])
def test_killed_in_mid_wave_it_goes_on_with_these_or_other_slots(train, in_twos, killed_before, tmp_path, slots):
    for step in (4, 9):  # in the first and in the second wave
        killed_before(step, lambda: train(slots=2, workdir=tmp_path, save_every=2))
    resumed = train(slots=slots, workdir=tmp_path, save_every=2)
    assert_close(resumed, in_twos)
    assert resumed.infos == in_twos.infos
    if slots == 2:
        assert equal(resumed, in_twos)


def test_a_damaged_result_is_made_again(train, in_twos, killed_before, tmp_path):
    killed_before(9, lambda: train(slots=2, workdir=tmp_path, save_every=2))
    (tmp_path / "finished" / "0.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="0.safetensors: is missing or damaged; its expert is trained again"):
        resumed = train(slots=2, workdir=tmp_path, save_every=2)
    assert_close(resumed, in_twos)


def test_a_run_on_a_mesh_goes_on_without_it(train, together, word_model, killed_before, tmp_path):
    model = on(make_mesh(expert=2, fsdp=2, tensor=2), word_model)
    killed_before(9, lambda: train(model=model, slots=2, workdir=tmp_path, save_every=2))
    assert_close(train(slots=3, workdir=tmp_path, save_every=2), together, atol=1e-5)


@pytest.mark.parametrize("sizes", [{"expert": 2, "fsdp": 2, "tensor": 2}, {"expert": 4, "fsdp": 2}], ids=str)
def test_waves_on_a_mesh(train, together, word_model, sizes):
    """Two slots, or four where the mesh needs as many."""
    found = train(model=on(make_mesh(**sizes), word_model), slots=2)
    assert_close(found, together, atol=1e-5)
