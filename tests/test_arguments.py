import jax.numpy as jnp
import numpy as np
import pytest

from modjax import InputError, arguments

WHOLE = (3, np.int64(3), np.uint8(3), np.array(3), jnp.int32(3))
NUMBERS = (0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.float32(0.5))


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_of_any_kind_become_int(value):
    found = arguments.whole("steps", value)
    assert type(found) is int and found == 3


@pytest.mark.parametrize("value", (*NUMBERS, *WHOLE), ids=repr)
def test_numbers_of_any_kind_become_python_numbers(value):
    found = arguments.number("rate", value)
    assert type(found) in (int, float) and found == value


@pytest.mark.parametrize("value", (True, np.True_, jnp.bool_(True)), ids=repr)
def test_booleans_are_flags_and_not_numbers(value):
    assert arguments.flag("scaled", value) is True
    for read in (arguments.whole, arguments.number):
        with pytest.raises(InputError, match="expected a"):
            read("steps", value)


@pytest.mark.parametrize("value", (None, "3", [3], np.ones(2), 3 + 0j, object(), float("nan"), float("inf"), 10**400))
def test_other_values_are_no_numbers(value):
    with pytest.raises(InputError, match="rate=.*: expected a finite number, above 0"):
        arguments.number("rate", value, above=0)


@pytest.mark.parametrize(
    "limits, value, expected",
    [
        ({"least": 0}, -1, "at least 0"),
        ({"most": 1}, 2, "at most 1"),
        ({"above": 0}, 0, "above 0"),
        ({"least": 0, "below": 1}, 1, "at least 0 and below 1"),
    ],
)
def test_limits_stand_in_the_error(limits, value, expected):
    with pytest.raises(InputError, match=f"^rate={value}: expected a finite number, {expected}$"):
        arguments.number("rate", value, **limits)


def test_whole_numbers_have_limits_and_are_no_floats():
    with pytest.raises(InputError, match="^steps=0: expected a whole number, at least 1$"):
        arguments.whole("steps", 0, least=1)
    with pytest.raises(InputError, match="expected a whole number"):
        arguments.whole("steps", 1.0)


def test_texts_flags_and_choices():
    assert arguments.text("name", np.str_("a")) == "a"
    assert arguments.choice("mix", "outputs", ("parameters", "outputs")) == "outputs"
    for read, value in ((arguments.text, b"a"), (arguments.flag, 1), (arguments.flag, "yes")):
        with pytest.raises(InputError):
            read("name", value)
    with pytest.raises(InputError, match=r"^mix=\['outputs'\]: expected one of parameters, outputs$"):
        arguments.choice("mix", ["outputs"], ("parameters", "outputs"))


def test_long_values_are_shortened():
    with pytest.raises(InputError) as caught:
        arguments.text("name", ["word"] * 100)
    assert len(str(caught.value)) < 120
