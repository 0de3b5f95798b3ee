"""Full fine-tuning of all weights on the union of the tasks, the baseline that adapters are held against.

modjax train --config=configs/full.py:quick --workdir=workdir/full
modjax evaluate --config=configs/evaluate.py:quick --config.model=workdir/full/model --workdir=workdir/full-scores
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = with_variants(base(), variants)
    config.method = "full"
    config.train.update(learning_rate=3e-5, batch=16)  # what experts learn by would tear the whole model apart
    return config
