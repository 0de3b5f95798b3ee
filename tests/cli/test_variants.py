"""Variants of a config: names and values after the colon of --config."""

import importlib
import json
import pathlib

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from modjax.cli import build, variants
from modjax.errors import InputError


@pytest.fixture
def config():
    return ConfigDict(
        {
            "model": "tiny",
            "only": (),
            "note": None,
            "train": {"batch": 16, "rate": 0.1, "remat": False, "top_k": placeholder(int), "length": 8},
            "evaluate": {"length": 9, "split": "test"},
            "method": {"router": {"name": "arrow"}, "merge": {}},
            "free": {},
        }
    )


def quick(config):
    config.train.batch = 1


def apply(config, text):
    variants.apply(config, text, {"quick": quick, "phi2": lambda config: None})
    return config


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.batch=4", "train.batch", 4),
        ("batch=4", "train.batch", 4),
        ("model=4", "model", "4"),
        ("model='a,b'", "model", "a,b"),
        ("model=dir/a=b", "model", "dir/a=b"),
        ("rate=1", "train.rate", 1.0),
        ("remat=True", "train.remat", True),
        ("remat=false", "train.remat", False),
        ("top_k=3", "train.top_k", 3),
        ("top_k=None", "train.top_k", None),
        ("note=text", "note", "text"),
        ("only=('a','b'),quick", "only", ("a", "b")),
        ("only=['a']", "only", ("a",)),
        ("only=words_*", "only", ("words_*",)),
        ("quick,batch=4", "train.batch", 4),
        ("batch=4,quick", "train.batch", 1),
        ("batch=4,batch=5", "train.batch", 5),
        ("method.router.top_k=2", "method.router.top_k", 2),
        ("method.router.input_norm=unit", "method.router.input_norm", "unit"),
        ("method.adapt.examples=8", "method.adapt.examples", 8),
        ("free.folder=here", "free.folder", "here"),
    ],
)
def test_values(config, text, key, value):
    found = apply(config, text)
    for name in key.split("."):
        found = found[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("quik", "unknown variant 'quik'; did you mean 'quick'?"),
        ("fast", "unknown variant 'fast'; expected one of quick, phi2"),
        ("bach=4", "unknown config key 'bach'; did you mean 'train.batch'?"),
        ("train.remt=True", "unknown config key 'train.remt'; did you mean 'train.remat'?"),
        ("evaluate.zzz=1", "unknown config key 'evaluate.zzz'; expected one of evaluate.length, evaluate.split"),
        ("model.zzz=1", "unknown config key 'model.zzz'; expected one of evaluate, free, method, model"),
        ("evaluat.lenth=1", "unknown config key 'evaluat.lenth'; did you mean 'evaluate.length'?"),
        ("method.router.name.x=1", "unknown config key 'method.router.name.x'; expected one of"),
        ("length=3", "config key 'length' is ambiguous; expected one of evaluate.length, train.length"),
        ("batch=many", "train.batch = 'many'; expected int"),
        ("batch=0.5", "train.batch = '0.5'; expected int"),
        ("batch=True", "train.batch = 'True'; expected int"),
        ("batch=None", "train.batch = 'None'; expected int"),
        ("remat=1", "train.remat = '1'; expected bool"),
        ("top_k=1.5", "train.top_k = '1.5'; expected int"),
        ("train=3", "train = '3'; expected ConfigDict"),
        ("only=('a'", "variants \"only=('a'\": expected ) before the end"),
        ("model='a", "variants \"model='a\": expected ' before the end"),
    ],
)
def test_errors_say_what_was_expected(config, text, error):
    with pytest.raises(InputError) as raised:
        apply(config, text)
    assert str(raised.value).startswith(error)


def test_commas_split_outside_brackets_and_quotes():
    assert variants.split("a,b=(1,[2,3]),c='x,)',d={'k':1,'l':2},,e") == [
        "a",
        "b=(1,[2,3])",
        "c='x,)'",
        "d={'k':1,'l':2}",
        "e",
    ]
    assert variants.split("") == []


@pytest.fixture
def get_config(monkeypatch):
    def get(job, text):
        monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "configs")
        return importlib.import_module(job).get_config(text)

    return get


@pytest.mark.parametrize("job", ["private", "shared", "mbc", "poly", "full", "transfer", "evaluate", "route", "demo"])
def test_values_win_over_what_a_config_sets_itself(get_config, job):
    config = get_config(job, "demo,batch=5,learning_rate=0.5,train.length=64")
    assert (config.train.batch, config.train.learning_rate, config.train.length) == (5, 0.5, 64)


@pytest.mark.parametrize("job", ["private", "poly", "adapt"])
def test_phi2_reads_the_same_rows_with_fewer_held_at_a_time(get_config, job):
    usual, large = get_config(job, "").train, get_config(job, "phi2,micro=4").train
    assert (large.steps, large.batch, large.length) == (usual.steps, usual.batch, usual.length)
    assert (usual.micro, large.micro) == (0, 4)


def test_full_and_poly_keep_their_own_settings_when_they_are_quick(get_config):
    assert get_config("poly", "demo").train.batch == 16
    quick = get_config("full", "quick").train
    assert (quick.batch, quick.learning_rate, quick.steps) == (16, 3e-5, 16)


def test_tasks_are_a_name_or_the_settings_of_a_data_set(get_config):
    config = get_config("private", "phi2,flan,micro=4")
    assert (config.tasks, config.train.micro, config.train.too_long) == ("flan", 4, "truncate_all")
    assert get_config("private", "flan,tasks=DIR").tasks == "DIR"
    given = {"id": "a/b", "columns": {"source": "{x}: {y}"}}
    config = get_config("private", f"tasks={given}")
    assert build.source(config) == given and json.loads(config.to_json())["tasks"] == given
    assert build.source(get_config("data", "gsm8k"))["subset"] == "main"
