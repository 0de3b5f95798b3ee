"""`modjax merge`: what it writes is what the function of that name gives."""

import jax
import numpy as np
import pytest

from modjax import merge
from modjax.experts.library import Library
from modjax.merge.genknowsub import genknowsub

PRODUCTS = ("--config.method.merge.form=products", "--config.method.merge.rank=3")


@pytest.fixture
def run(modjax, config_file, library, tmp_path):
    """run(*arguments): (exit code, stdout, stderr) of merging the library in WORKDIR."""

    def run(*arguments):
        flags = [f"--config={config_file}", f"--config.library={library}", f"--workdir={tmp_path / 'merged'}"]
        return modjax("merge", *flags, *arguments)

    return run


def same(got, expected):
    for one, other in zip(jax.tree.leaves(got.loras), jax.tree.leaves(expected.loras), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_merge_with_options(run, library, tmp_path):
    arguments = ("--config.method.merge.name=ties", "--config.method.merge.density=0.4", *PRODUCTS)
    code, out, err = run(*arguments)
    assert code == 0, err
    path = tmp_path / "merged" / "library"
    assert f"{path}: Library(1 experts of rank 3" in out
    same(Library.load(path), merge.ties(Library.load(library), density=0.4, form="products", rank=3))
    code, out, _ = run(*arguments)
    assert code == 0 and "nothing to do" in out


def test_general_knowledge_is_subtracted(run, library, random_library, tmp_path):
    general = random_library({"attn.q": (16, 16), "mlp.down": (24, 16)}, experts=2, seed=9, names=["wiki", "web"])
    general.save(tmp_path / "general")
    code, _, err = run(f"--config.method.subtract.library={tmp_path / 'general'}")
    assert code == 0, err
    same(Library.load(tmp_path / "merged" / "library"), genknowsub(Library.load(library), general))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.method.merge.name=tiles"], "config.method.merge.name: unknown merge 'tiles'; did you mean 'ties'?"),
        (
            ["--config.method.merge.name=uniform", "--config.method.merge.ranks=2"],
            "merge uniform: unknown option 'ranks'",
        ),
        (["--config.method.merge.rank=2"], "config.method.merge = {'rank': 2}; expected a name among its options"),
        (["--config.method.merge.name=weighted"], "weighted: missing a required argument: 'weights'"),
        ([], "config.method: neither 'subtract' nor 'merge' is given; expected at least one"),
    ],
)
def test_faulty_options_are_named(run, arguments, words):
    code, _, err = run(*arguments)
    assert code == 2 and words in err
