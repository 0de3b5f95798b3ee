"""Scores of a library under a router, or of the base model where no library is given.

    modjax evaluate --config=configs/evaluate.py:quick --config.library=workdir/mbc/library --workdir=workdir/arrow
    modjax evaluate --config=configs/evaluate.py:quick,uniform --config.library=workdir/mbc/library --workdir=workdir/mu
    modjax generate --config=configs/evaluate.py:quick --config.library=workdir/mbc/library --workdir=workdir/answers \\
        --prompt="Give the plural of wolf."
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    return with_variants(base(), variants)
