"""Poly: skills that all tasks share, with each task's weights over them; MHR with weights for each of 64 blocks.

modjax train --config=configs/poly.py:quick --workdir=workdir/poly
modjax train --config=configs/poly.py:quick,mhr --workdir=workdir/mhr
modjax evaluate --config=configs/poly.py:quick --config.library=workdir/poly/library \\
    --config.router.name=workdir/poly/router.safetensors --workdir=workdir/poly-scores
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.method = "poly"
    config.train.learning_rate = 1e-3
    config = with_variants(config, variants)
    config.train.batch = 16  # all tasks share the rows of a step
    return config
