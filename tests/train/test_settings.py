"""Settings that cannot be meant are refused by name."""

import dataclasses
import json
import re
import typing

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.train.settings import Settings, SettingsFields


def test_the_defaults_are_the_papers():
    settings = Settings()
    assert (settings.rank, settings.alpha, settings.dropout, settings.warmup) == (4, 16.0, 0.05, 0.06)
    assert (settings.learning_rate, settings.weight_decay, settings.batch) == (1e-4, 0.0, 16)


def test_the_keywords_are_the_fields():
    assert typing.get_type_hints(SettingsFields) == typing.get_type_hints(Settings)


def test_an_unknown_setting_is_named(train):
    with pytest.raises(InputError, match="lerning_rate: no such setting of Settings; did you mean 'learning_rate'"):
        train(lerning_rate=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("length", -1),
        ("rank", 0),
        ("log_every", 0),
        ("loss_chunk", 0),
        ("evaluate_every", -1),
        ("save_every", -1),
        ("learning_rate", -1e-3),
        ("weight_decay", -0.1),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("warmup", 1.5),
        ("clip", 0.0),
        ("too_long", "cut"),
        ("stop_by", "rouge"),
        ("max_new_tokens", 0),
        ("patience", 2),
        ("steps", 2**31),
        ("steps", 1.0),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("learning_rate", 1e300),
        ("clip", float("inf")),
        ("clip", float("nan")),
        ("weight_decay", float("nan")),
        ("alpha", float("inf")),
        ("dropout", float("nan")),
        ("warmup", float("nan")),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 0.5),
        ("seed", None),
        ("remat", 1),
        ("system", 3),
        ("sites", "attn.q"),
    ],
)
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(InputError, match=f"^{field}=.?{re.escape(str(value))}"):
        Settings(**{field: value})


def test_scalars_of_numpy_and_jax_are_kept_as_python_values():
    given = {
        "steps": np.int64(3),
        "seed": jnp.int32(1),
        "learning_rate": np.float32(0.5),
        "alpha": jnp.float32(8),
        "sites": ["attn.q", np.str_("attn.k")],
        "tie": [["attn.q", "attn.k"]],
        "remat": np.True_,
    }
    found = Settings(**given)
    assert {name: type(getattr(found, name)) for name in given} == {
        "steps": int, "seed": int, "learning_rate": float, "alpha": float, "sites": tuple, "tie": tuple, "remat": bool,
    }  # fmt: skip
    assert json.loads(json.dumps(dataclasses.asdict(found)))["sites"] == ["attn.q", "attn.k"]
    hash(found)


def test_patience_goes_with_validation():
    assert Settings(patience=2, evaluate_every=5).patience == 2
