"""Does the similarity of two tasks' experts say whether training them together helps? Claim (a) of the paper.

    modjax transfer --config=configs/transfer.py:quick --config.library=workdir/private/library \\
        --workdir=workdir/transfer

`config.train` is to be as the private library was trained; a joint expert then has twice the rows a step.
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.transfer = {"pairs": 48, "bins": 4, "seed": 0}
    config.train.remat = True  # all pairs are trained at once: rather a third more time than the memory
    return with_variants(config, variants)
