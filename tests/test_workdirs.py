"""Each function with a workdir ties it to all that its result depends on: one run, then the same but for one thing."""

import copy
import dataclasses
import sys

import jax
import pytest

from modjax import adapt, routing
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.train import run
from modjax.train.fit import UNRECORDED
from modjax.train.full import train_full
from modjax.train.lora import train_library
from modjax.train.poly import train_poly
from modjax.train.settings import Settings

RUN = {"steps": 2, "batch": 2, "length": 32, "dropout": 0.0}
LORA = RUN | {"rank": 2, "alpha": 4.0, "sites": ("attn.q", "attn.o"), "save_every": 1}


@pytest.fixture(scope="module")
def parts(word_model, word_tasks, random_library):
    """The arguments of all functions."""
    sites = {site: word_model.config.sites[site] for site in LORA["sites"]}
    infos = {"names": ["reverse", "copy"], "scale": 2.0}
    libraries = [random_library(sites, 2, seed=seed, **infos) for seed in (0, 1)]
    return {
        "model": word_model,
        "tasks": word_tasks.select(["reverse", "copy"]),
        "library": libraries[0],
        "other library": libraries[1],
    }


def _train_library(given, workdir, **own):
    return train_library(given["model"], given["tasks"], workdir=workdir, progress=False, **(LORA | own))


def _train_poly(given, workdir, **own):
    return train_poly(given["model"], given["tasks"], workdir=workdir, progress=False, **({"skills": 2} | LORA | own))


def _train_full(given, workdir, **own):
    return train_full(given["model"], given["tasks"], workdir=workdir, progress=False, **(RUN | own))


def _phatgoose(given, workdir, **own):
    parts = given["library"], given["model"], given["tasks"]
    return routing.phatgoose(*parts, workdir=workdir, progress=False, **(RUN | own))


def _lora(given, workdir, **own):
    return adapt.lora(given["model"], given["tasks"], workdir=workdir, progress=False, **(LORA | own))


def _adapted(function):
    def run(given, workdir, **own):
        parts = given["model"], given["library"], given["tasks"]
        return function(*parts, workdir=workdir, progress=False, **(RUN | own))

    return run


def _lorahub(given, workdir, **own):
    parts = given["model"], given["library"], given["tasks"]
    return adapt.lorahub(*parts, workdir=workdir, progress=False, **({"budget": 3, "length": 32} | own))


FUNCTIONS = {
    "train_library": _train_library,
    "train_poly": _train_poly,
    "train_full": _train_full,
    "phatgoose": _phatgoose,
    "lora": _lora,
    "mu": _adapted(adapt.mu),
    "poly": _adapted(adapt.poly),
    "cat": _adapted(adapt.cat),
    "lorahub": _lorahub,
}
OF_LIBRARIES = ("phatgoose", "mu", "poly", "cat", "lorahub")


class Stopped(Exception):
    """In place of the training or the search itself."""


@pytest.fixture
def stopped(monkeypatch):
    """From here on nothing is trained or searched: it stops where that begins."""

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(run.Run, "train", stop)
    monkeypatch.setattr(sys.modules["modjax.adapt.lorahub"], "search", stop)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_refused(run, given, folder, words, **own):
    """The sentence names what differs, and the folder stays as it is."""
    before = files(folder)
    with pytest.raises(InputError, match=rf"inputs\.json: this folder was made with inputs\.{words}") as error:
        run(given, folder, **own)
    assert str(error.value).endswith(", expected the same or a new folder")
    assert files(folder) == before


def _other_example(tasks):
    first, *rest = tasks.values()
    example = dataclasses.replace(first.examples[0], target="w9 w9")
    return Tasks([dataclasses.replace(first, examples=(example, *first.examples[1:])), *rest])


def _other_weights(model):
    return dataclasses.replace(model, params=jax.tree.map(lambda leaf: leaf * 1.01, model.params))


def _other_template(model):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return dataclasses.replace(model, tokenizer=tokenizer)


def _other_dtype(model):
    return dataclasses.replace(model, params=jax.tree.map(lambda leaf: leaf.astype("bfloat16"), model.params))


CONTENT = [
    (lambda given: {"tasks": _other_example(given["tasks"])}, r"tasks\.reverse = '\w{16}'; found '\w{16}'"),
    (lambda given: {"model": _other_weights(given["model"])}, r"model\.weights = '\w{16}'; found '\w{16}'"),
    (lambda given: {"model": _other_dtype(given["model"])}, r"model\.dtypes\[0\] = 'float32'; found 'bfloat16'"),
    (lambda given: {"model": _other_template(given["model"])}, r"model\.tokenizer = '\w{16}'; found '\w{16}'"),
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_workdir_is_tied_to_model_tasks_library_and_seed(name, parts, stopped, tmp_path):
    run = FUNCTIONS[name]
    for _ in range(2):  # the same again is accepted
        with pytest.raises(Stopped):
            run(parts, tmp_path)
    for change, words in CONTENT:
        check_refused(run, parts | change(parts), tmp_path, words)
    check_refused(run, parts, tmp_path, r"settings\.seed = 0; found 5", seed=5)
    if name in OF_LIBRARIES:
        other = parts | {"library": parts["other library"]}
        check_refused(run, other, tmp_path, r"(library|init|given) = '\w{16}'; found '\w{16}'")


@pytest.mark.parametrize("second", FUNCTIONS)
def test_a_workdir_is_of_one_function(second, parts, stopped, tmp_path):
    first = "cat" if second == "phatgoose" else "phatgoose"
    with pytest.raises(Stopped):
        FUNCTIONS[first](parts, tmp_path)
    check_refused(FUNCTIONS[second], parts, tmp_path, "kind = ")


OTHER = {
    "steps": 3, "epochs": 2.0, "batch": 3, "micro": 1, "length": 40, "rank": 4, "alpha": 8.0, "sites": ("attn.q",),
    "shared_a": True,
    "tie": (("attn.q", "attn.k"),), "dropout": 0.5, "learning_rate": 1e-2, "warmup": 0.5, "weight_decay": 0.1,
    "clip": 2.0, "seed": 3, "system": "w1", "too_long": "truncate", "evaluate_every": 1, "patience": 1,
    "stop_by": "rouge_l", "max_new_tokens": 3, "remat": True, "loss_chunk": 8,
}  # fmt: skip
ALSO = {"tie": {"sites": ("attn.q", "attn.k")}, "patience": {"evaluate_every": 1}}  # what a setting needs besides


def test_every_setting_is_in_one_of_two_lists():
    assert {field.name for field in dataclasses.fields(Settings)} == {*OTHER, *UNRECORDED}


@pytest.mark.parametrize("setting", OTHER)
def test_a_workdir_is_tied_to_each_setting(setting, parts, stopped, tmp_path):
    also, name = ALSO.get(setting, {}), "kind" if setting == "shared_a" else rf"settings\.{setting}"
    with pytest.raises(Stopped):
        _train_library(parts, tmp_path, **also)
    check_refused(_train_library, parts, tmp_path, rf"{name}.* = .*; found ", **{setting: OTHER[setting]}, **also)


GROUPS = {"one": ("reverse", "copy"), "two": ("copy",)}
OTHER_GROUPS = {
    "order": ({"two": ("copy",), "one": ("reverse", "copy")}, r"groups\[0\]\[0\] = 'one'; found 'two'"),
    "order of tasks": (GROUPS | {"one": ("copy", "reverse")}, r"groups\[0\]\[1\]\[0\] = 'reverse'; found 'copy'"),
    "name": ({"one": GROUPS["one"], "second": ("copy",)}, r"groups\[1\]\[0\] = 'two'; found 'second'"),
    "fewer": ({"one": GROUPS["one"]}, r"groups\[1\] = \['two', \['copy'\]\]; found None"),
    "more tasks": (GROUPS | {"two": ("copy", "reverse")}, r"groups\[1\]\[1\]\[1\] = None; found 'reverse'"),
}


@pytest.mark.parametrize("change", OTHER_GROUPS)
def test_a_workdir_is_tied_to_its_groups_in_order(change, parts, stopped, tmp_path):
    with pytest.raises(Stopped):
        _train_library(parts, tmp_path, groups=GROUPS)
    groups, words = OTHER_GROUPS[change]
    check_refused(_train_library, parts, tmp_path, words, groups=groups)


def test_a_workdir_is_tied_to_the_experts_that_a_run_starts_from(parts, stopped, tmp_path):
    with pytest.raises(Stopped):
        _train_library(parts, tmp_path, init=parts["library"])
    check_refused(_train_library, parts, tmp_path, "init = '.*'; found '.*'", init=parts["other library"])
    check_refused(_train_library, parts, tmp_path, "init = '.*'; found None")


def test_the_same_run_again_reads_its_result_back_and_another_one_loses_nothing(parts, tmp_path):
    first = _train_library(parts, tmp_path)
    check_refused(_train_library, parts, tmp_path, "settings.learning_rate", learning_rate=1e-2)
    again = _train_library(parts, tmp_path, save_every=2, log_every=2)  # no result depends on these
    assert first.fingerprint == again.fingerprint and first.infos == again.infos


def test_checkpoints_of_unknown_inputs_are_refused(parts, tmp_path):
    _train_library(parts, tmp_path)
    (tmp_path / "inputs.json").unlink()
    before = files(tmp_path)
    with pytest.raises(
        InputError, match=r"inputs\.json: is missing, so it is not known what .*checkpoints was made of"
    ):
        _train_library(parts, tmp_path)
    assert files(tmp_path) == before
