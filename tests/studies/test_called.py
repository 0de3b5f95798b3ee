"""The check of a function's options before it is called."""

import re
from typing import Literal, TypedDict, Unpack

import pytest

from modjax.errors import InputError
from modjax.studies.catalogue import called


def function(library, rank, weights=None):
    return library, rank, weights


def test_a_function_is_called_with_its_options():
    assert called("merge", function, "experts", rank=2) == ("experts", 2, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "missing a required argument: 'rank'; its options are rank, weights"),
        ({"rank": 1, "weigths": 2}, "unknown option 'weigths'; did you mean 'weights'?"),
        ({"rank": 1, "library": 2}, "unknown option 'library'; expected one of rank, weights"),
    ],
)
def test_missing_and_unknown_options_are_named(options, words):
    with pytest.raises(InputError, match=f"merge: .*{re.escape(words)}"):
        called("merge", function, "experts", **options)


class Fields(TypedDict, total=False):
    seed: int


def grouped(library, rank: int, **options: Unpack[Fields]):
    return rank, options


def test_options_of_a_typed_dictionary_are_known_by_name_and_type():
    assert called("merge", grouped, "experts", rank=2, seed=3) == (2, {"seed": 3})
    with pytest.raises(InputError, match="seed = 'x'; expected int"):
        called("merge", grouped, "experts", rank=2, seed="x")
    with pytest.raises(InputError, match="unknown option 'seeds'; did you mean 'seed'"):
        called("merge", grouped, "experts", rank=2, seeds=3)


def typed(library, rank: int, share: float | None = None, by: Literal["a", "b"] = "a", sites: tuple[str, ...] = ()):
    return rank, share, by, sites


def test_options_of_the_right_types_are_passed_on():
    assert called("merge", typed, "experts", rank=2, share=1, by="b", sites=["x"]) == (2, 1, "b", ["x"])
    assert called("merge", typed, "experts", rank=2, share=None) == (2, None, "a", ())


@pytest.mark.parametrize(
    "options", [{"rank": "2"}, {"rank": 2.0}, {"rank": True}, {"rank": 2, "share": "x"}, {"rank": 2, "by": 3}]
)
def test_options_of_other_types_are_named(options):
    *_, (name, value) = options.items()
    with pytest.raises(InputError, match=f"merge: {name} = {value!r}; expected "):
        called("merge", typed, "experts", **options)


def test_hints_that_are_not_types_are_ignored():
    def own(library, rank: "a number" = 1):  # noqa: F722
        return rank

    assert called("router", own, "experts", rank="x") == "x"
