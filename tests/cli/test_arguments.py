"""Arguments in one string, and the check of what a function takes."""

import pytest

from modjax.cli.arguments import called, parsed
from modjax.errors import InputError


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
