"""The shared expert: one LoRA on the union of all tasks, the baseline that every library is held against.

modjax train --config=configs/shared.py:quick --workdir=workdir/shared
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.groups = "shared"
    config.train.dropout = 0.0  # as in the paper's reference code
    return with_variants(config, variants)
