"""Training runs as a whole: lockstep, resuming, failures, early stopping, and input that does not fit."""

import copy
import dataclasses
import fcntl
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import lock
from modjax.data.tasks import Task, Tasks
from modjax.errors import Busy, InputError
from modjax.experts.library import Library
from modjax.train import answers, metrics


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def assert_close(first, second, atol=1e-6):
    for a, b in zip(jax.tree.leaves(first.loras), jax.tree.leaves(second.loras), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_a_library_knows_how_it_was_trained(together, word_model):
    assert together.names == ("reverse", "copy", "sort", "count")
    info = together.infos[1]
    assert (info.tasks, info.rank, info.alpha, info.base) == (("copy",), 2, 8.0, "tiny")
    assert info.fingerprint == word_model.fingerprint and dict(info.training)["steps"] == 6
    np.testing.assert_array_equal(together.scale, 4.0)
    assert np.abs(together.loras["attn.q"].b).max() > 1e-3


@pytest.mark.parametrize("name", ["reverse", "sort"])
def test_lockstep_equals_one_at_a_time(train, together, name):
    assert_close(together[name], train({name: (name,)}))


def test_an_expert_more_and_another_order_change_no_other(train, together):
    fewer = train({name: (name,) for name in ("sort", "count", "reverse")})
    assert_close(together[list(fewer.names)], fewer)


def test_a_group_is_one_expert_on_all_its_tasks(train, tmp_path):
    shared = train({"shared": ("copy", "sort")}, workdir=tmp_path, steps=25, log_every=5, learning_rate=1e-2)
    assert len(shared) == 1 and shared.tasks == (("copy", "sort"),)
    losses = [line["loss"]["shared"] for line in metrics.read(tmp_path / "metrics.jsonl")]
    assert len(losses) == 5 and losses[-1] < losses[0]


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(train, killed_before, tmp_path):
    settings = {"save_every": 2, "evaluate_every": 3, "patience": 5}
    whole = train(workdir=tmp_path / "whole", **settings)
    for step in (3, 6):  # after the checkpoints of steps 2 and 4
        killed_before(step, lambda: train(workdir=tmp_path / "killed", **settings))
    resumed = train(workdir=tmp_path / "killed", **settings)
    assert equal(whole, resumed) and whole.infos == resumed.infos
    lines, expected = (metrics.read(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole"))
    assert sorted(lines, key=str) == sorted(expected, key=str)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_changes_nothing_but_the_time(train, killed_before, tmp_path):
    settings = {"save_every": 2, "workdir": tmp_path}
    killed_before(6, lambda: train({"copy": ("copy",)}, **settings))  # after the checkpoints of steps 2 and 4
    (arrays,) = (tmp_path / "checkpoints" / "4" / "state" / "ocdbt.process_0" / "d").iterdir()
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    with pytest.warns(UserWarning, match="checkpoint 4 is damaged .* the run continues from checkpoint 2"):
        resumed = train({"copy": ("copy",)}, **settings)
    assert equal(train({"copy": ("copy",)}), resumed)


def test_another_run_in_the_folder_is_refused(train, tmp_path):
    with (tmp_path / lock.NAME).open("w") as file:
        file.write("process 1 on a machine")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="process 1 on a machine works in this folder"):
            train({"copy": ("copy",)}, workdir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]


def test_a_finished_run_is_read_back(train, tmp_path):
    first = train({"copy": ("copy",)}, workdir=tmp_path, save_every=3)
    again = train({"copy": ("copy",)}, workdir=tmp_path, save_every=3)
    assert equal(first, again)


def test_the_newest_checkpoints_are_kept(train, tmp_path):
    train({"copy": ("copy",)}, workdir=tmp_path, save_every=1, keep=3)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "5", "6"]


def test_a_broken_expert_stops_alone(train, together, caplog):
    """Experts start from a library in which one has a NaN."""

    def broken_at(leaf):
        return leaf.at[0, 1, 0, 0].set(jnp.nan)

    broken = {site: lora._replace(a=broken_at(lora.a), b=broken_at(lora.b)) for site, lora in together.loras.items()}
    with caplog.at_level(logging.WARNING):
        sound, found = (train(init=dataclasses.replace(together, loras=loras)) for loras in (together.loras, broken))
    others = ["reverse", "sort", "count"]
    assert equal(sound[others].loras, found[others].loras)
    for leaf, start in zip(jax.tree.leaves(found["copy"].loras), jax.tree.leaves(broken), strict=True):
        np.testing.assert_array_equal(leaf, start[:, 1:2])
    warnings = [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]
    assert len(warnings) == 1 and "expert copy" in warnings[0]


DIVERGING = {"groups": {"copy": ("copy",), "sort": ("sort",)}, "steps": 2, "warmup": 0.5, "learning_rate": 3e38}


def assert_first_arrays_are_kept(library, failed):
    """At this rate the first update makes all losses infinite, so that the arrays before it are kept, with B = 0."""
    assert library.failed == library.names and {info.failed for info in library.infos} == {failed}
    for lora in library.loras.values():
        assert np.isfinite(lora.a).all() and not np.asarray(lora.b).any()


def test_arrays_that_the_last_update_makes_bad_are_not_kept(train):
    assert_first_arrays_are_kept(train(**DIVERGING | {"steps": 1, "warmup": 1.0}), failed=1)


def test_the_last_good_arrays_are_in_the_checkpoint(train, tmp_path, killed_before):
    killed_before(2, lambda: train(workdir=tmp_path, save_every=1, **DIVERGING))
    assert_first_arrays_are_kept(train(workdir=tmp_path, save_every=1, **DIVERGING), failed=2)


def test_a_failure_is_kept_with_the_expert(together, tmp_path):
    infos = tuple(dataclasses.replace(info, failed={"copy": 3}.get(info.name)) for info in together.infos)
    library = dataclasses.replace(together, infos=infos)
    assert repr(library).endswith("; failed: copy)") and "failed" not in repr(together)
    library.save(tmp_path / "library")
    read = Library.load(tmp_path / "library")
    assert (read[["sort", "count"]] + read["copy"]).infos[2].failed == 3 and read.failed == ("copy",)
    index = json.loads((tmp_path / "library" / "library.json").read_text())
    for entry in index["experts"]:
        del entry["failed"]  # as earlier versions wrote it
    (tmp_path / "library" / "library.json").write_text(json.dumps(index))
    assert Library.load(tmp_path / "library").failed == ()


def test_the_best_arrays_are_those_of_a_finite_loss(train, two_tasks, monkeypatch):
    """Answers may score best where the loss is not finite."""
    rouge = iter((0.2, 0.9))
    monkeypatch.setattr(answers.Answers, "rouge_l", lambda *_: np.float32([next(rouge)]))
    stopping = {"evaluate_every": 1, "patience": 3, "stop_by": "rouge_l", "max_new_tokens": 8}
    found = train(tasks=two_tasks, **DIVERGING | {"groups": {"steady": ("steady",)}} | stopping)
    assert_first_arrays_are_kept(found, failed=2)
    assert found.infos[0].scores == ()


def test_early_stopping_keeps_the_best_and_lets_others_go_on(train, two_tasks, tmp_path):
    settings = {"steps": 16, "learning_rate": 5e-2, "evaluate_every": 2, "dropout": 0.0}
    stopped = train(tasks=two_tasks, workdir=tmp_path, patience=2, **settings)
    ended = train(tasks=two_tasks, **settings)
    losses = [line["loss"] for line in metrics.read(tmp_path / "metrics.jsonl") if line["kind"] == "validation"]
    noisy = [loss["noisy"] for loss in losses if "noisy" in loss]
    best = int(np.argmin(noisy))
    assert len(noisy) < len(losses) - 1, "the noisy task was to overfit early"
    assert best == len(noisy) - 3, "it leaves two validations after its best one"
    assert dict(stopped.infos[1].training)["steps"] == 2 * len(noisy)
    np.testing.assert_allclose(dict(stopped.infos[1].scores)["validation_loss"], noisy[best], atol=1e-6)
    assert np.argmin([loss["steady"] for loss in losses]) == len(losses) - 1
    assert_close(stopped["steady"], ended["steady"])
    assert not np.allclose(stopped["noisy"].loras["attn.q"].b, ended["noisy"].loras["attn.q"].b)


def test_a_run_ends_when_all_experts_have_stopped(train, two_tasks, tmp_path):
    settings = {"steps": 40, "learning_rate": 5e-2, "evaluate_every": 1, "patience": 1, "save_every": 1}
    groups = {"noisy": ("noisy",)}
    first = train(groups, tasks=two_tasks, workdir=tmp_path, **settings)
    steps = dict(first.infos[0].training)["steps"]
    assert steps < 40
    again = train(groups, tasks=two_tasks, workdir=tmp_path, **settings)
    assert equal(first, again) and first.infos == again.infos


def test_held_out_tasks_train_nobody(train, word_tasks):
    tasks = Tasks(dataclasses.replace(task, held_out=task.name != "copy") for task in word_tasks.values())
    assert train(tasks=tasks, steps=1).names == ("copy",)
    with pytest.raises(InputError, match="no task 'sort'"):
        train({"x": ("sort",)}, tasks=tasks)


def test_an_unknown_site_is_named(train):
    with pytest.raises(InputError, match=r"sites \['mlp.fc1'\]: expected at least one of attn.q, .*mlp.down"):
        train(sites=("attn.q", "mlp.fc1"))


def test_an_empty_split_is_named(train, word_tasks):
    tasks = Tasks([Task("copy", word_tasks["copy"].split("train"))])
    with pytest.raises(InputError, match="task 'copy' has no examples in split 'validation'"):
        train(tasks=tasks, evaluate_every=1)


def test_a_model_without_tokenizer_is_named(train, word_model):
    with pytest.raises(InputError, match="tiny: the checkpoint has no tokenizer"):
        train(model=dataclasses.replace(word_model, tokenizer=None))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({}, "groups={}: expected at least one group of tasks"),
        ([], r"groups=\[\]: expected at least one group of tasks"),
        ("copy", "groups='copy': expected at least one group of tasks"),
        ([("g", ["copy"])], "groups=.*: expected at least one group of tasks"),
        ({"g": []}, r"groups\['g'\]=\[\]: expected at least one task"),
        ({"g": "copy"}, r"groups\['g'\]='copy': expected a list of names of tasks"),
        ({"g": None}, r"groups\['g'\]=None: expected a list"),
        ({"g": [1]}, r"groups\['g'\]=1: expected a string"),
        ({"g": ["copy", "copy"]}, r"groups\['g'\]=.*each named once"),
        ({1: ["copy"]}, "the name of a group=1: expected a string"),
        ({"g": ["copie"]}, "no task 'copie'; the collection has"),
    ],
)
def test_what_are_no_groups_is_named(train, groups, words):
    with pytest.raises(InputError, match=words):
        train(groups)


@pytest.mark.parametrize("tasks", [None, "open48", [], {"copy": ["w1"]}])
def test_what_are_no_tasks_is_named(train, tasks):
    with pytest.raises(InputError, match="tasks=.*: expected Tasks, from modjax.data.load"):
        train(tasks=tasks)


def test_a_tokenizer_without_any_end_is_named(train, word_model):
    words = copy.deepcopy(word_model.tokenizer)
    words.eos_token = None
    with pytest.raises(InputError, match="the tokenizer .* has no end-of-sequence token, and no chat template that"):
        train(model=dataclasses.replace(word_model, tokenizer=words))


@pytest.mark.parametrize("change", ["fewer", "scale", "sites"])
def test_experts_to_start_from_must_fit_the_run(train, together, change):
    factors = {site: lora.factors for site, lora in together.loras.items()}
    init = {
        "fewer": together[:2],
        "scale": Library.from_arrays(factors, together.names, 2 * together.scale),
        "sites": Library({"attn.q": together.loras["attn.q"]}, together.infos),
    }[change]
    with pytest.raises(InputError, match=r"init: \(experts, rank, sites, scales\) = "):
        train(init=init)
