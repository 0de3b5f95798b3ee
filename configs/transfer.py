"""Whether the similarity of two tasks' experts tells if training them together helps (arXiv 2405.11157, section 3.1).

    modjax train --config=configs/private.py:demo --workdir=workdir/private
    modjax transfer --config=configs/transfer.py:demo,library=workdir/private/library --workdir=workdir/transfer

`train` must have the values that the private library was trained with; a joint expert then has twice the rows per step.

Default   48 pairs x 32 rows x 1000 steps x 2048 tokens, all pairs at once. Time and results were not measured here.
demo      48 pairs x 2 rows x 8 steps x 128 tokens, seven minutes on two CPU cores. Expect Spearman's rank correlation
          0.33, 95 % of draws from 0.05 to 0.55; with `train.steps=16` -0.06, from -0.37 to 0.24.
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.transfer = {
        "pairs": 48,
        "bins": 4,  # of similarity, in each of which the mean gain is shown
        "seed": 0,  # of the choice of pairs
    }
    return with_variants(config, variants)
