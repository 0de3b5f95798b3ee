"""Arguments in one string, and the check of what a function takes."""

from typing import Literal

import pytest
from modjax.cli.arguments import parsed

from modjax.errors import InputError
from modjax.studies.catalogue import called


def test_literals_are_read_as_in_python():
    text = "density=0.3, form='products', tie=(('attn.q', 'attn.k'),), weights=[1, -2], rank=None"
    expected = dict(density=0.3, form="products", tie=(("attn.q", "attn.k"),), weights=[1, -2], rank=None)
    assert parsed(text, "config.router.options") == expected
    assert parsed("", "config.router.options") == {}


@pytest.mark.parametrize(
    "text",
    ["0.3", "density", "a=1, a=2", "**{'a': 1}", "a=print()", "a=open('x').read()", "a=1) + f(b=2", "a=", "a=1)(b=2"],
)
def test_anything_else_is_named_and_not_run(text):
    with pytest.raises(InputError, match="config.merge.options = .*: expected name=value, ... as in Python"):
        parsed(text, "config.merge.options")


def function(library, rank, weights=None):
    return library, rank, weights


def test_a_function_is_called_with_what_it_takes():
    assert called("merge", function, "experts", rank=2) == ("experts", 2, None)


@pytest.mark.parametrize(("options", "words"), [({}, "'rank'"), ({"rank": 1, "ranks": 2}, "'ranks'")])
def test_options_that_it_has_not_or_lacks_are_named(options, words):
    with pytest.raises(InputError, match=f"merge: .*{words}; its options are rank, weights"):
        called("merge", function, "experts", **options)


def typed(library, rank: int, share: float | None = None, by: Literal["a", "b"] = "a", sites: tuple[str, ...] = ()):
    return rank, share, by, sites


def test_options_of_the_types_that_it_asks_for_are_passed_on():
    assert called("merge", typed, "experts", rank=2, share=1, by="b", sites=["x"]) == (2, 1, "b", ["x"])
    assert called("merge", typed, "experts", rank=2, share=None) == (2, None, "a", ())


@pytest.mark.parametrize(
    "options", [{"rank": "2"}, {"rank": 2.0}, {"rank": True}, {"rank": 2, "share": "x"}, {"rank": 2, "by": 3}]
)
def test_options_of_other_types_are_named(options):
    *_, (name, value) = options.items()
    with pytest.raises(InputError, match=f"merge: {name} = {value!r}; expected "):
        called("merge", typed, "experts", **options)


def test_hints_that_are_no_types_are_left_alone():
    def own(library, rank: "a number" = 1):  # noqa: F722
        return rank

    assert called("router", own, "experts", rank="x") == "x"
