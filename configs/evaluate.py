"""Scores of a method: a library with a router, a merged library, or the base model if no library is given.

Cost: one forward pass and one answer per example. Expect: the table in README.md for the demo's libraries.

    modjax evaluate --config=configs/evaluate.py:quick,library=workdir/mbc/library --workdir=workdir/scores/arrow
    modjax evaluate --config=configs/evaluate.py:quick,uniform,library=workdir/mbc/library --workdir=workdir/scores/mu
    modjax evaluate --config=configs/evaluate.py:quick,library=workdir/mbc/library,method.router.length=singular \\
        --workdir=workdir/scores/singular

`split=validation` scores the validation examples, by which settings are chosen; `split=test` is for what is reported.

The method is the dictionary of modjax.studies.methods: method.router.NAME sets any option of the router, method.merge
and method.subtract change the library first.
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    return with_variants(base(), variants)
