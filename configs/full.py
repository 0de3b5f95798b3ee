"""Full fine-tuning of all weights on all tasks together, a baseline for adapters.

    modjax train --config=configs/full.py:demo --workdir=workdir/full
    modjax evaluate --config=configs/evaluate.py:demo,model=workdir/full/model --workdir=workdir/full-scores

Default   16 rows x 1000 steps x 2048 tokens on SmolLM2-135M and open48, 33 million tokens. Training takes 16
          bytes per parameter in addition to the model. Time and results were not measured here.
epochs    `:epochs=1`, the paper's number, in place of 1000 steps.
demo      16 rows x 8 steps x 128 tokens on the demo's tasks, as many rows as the demo's libraries. Expect 0.89 nats per
          target token on the sixteen training tasks and 1.87 on the eight held-out ones (docs/methods.md).
"""

import common


def get_config(variants: str | None = None):
    config = common.base()
    config.recipe = "full"
    gentle(config)
    return common.with_variants(config, variants, quick=quick, demo=demo)


def gentle(config):
    config.train.update(learning_rate=3e-5, batch=16)  # at the learning rate of experts the model would diverge


def quick(config):
    common.quick(config)
    gentle(config)


def demo(config):
    common.demo(config)
    gentle(config)
