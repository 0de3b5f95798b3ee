"""Full fine-tuning of all weights on the union of the tasks, the baseline that adapters are held against.

modjax train --config=configs/full.py:quick --config.train.learning_rate=3e-5 --workdir=workdir/full
modjax evaluate --config=configs/evaluate.py:quick --config.model=workdir/full/model --workdir=workdir/full-scores
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.method = "full"
    config.train.learning_rate = 3e-5
    return with_variants(config, variants)
