"""Settings that cannot be meant are refused by name."""

import typing

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
    with pytest.raises(TypeError, match="unexpected keyword argument 'lerning_rate'"):
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
    ],
)
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(InputError, match=f"{field}=.?{value}"):
        Settings(**{field: value})


def test_patience_goes_with_validation():
    assert Settings(patience=2, evaluate_every=5).patience == 2
