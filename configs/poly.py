"""Poly: skills that all tasks share, weighted by task (arXiv 2202.13914); MHR: by task and block (arXiv 2211.03831).

    modjax train --config=configs/poly.py:demo --workdir=workdir/poly
    modjax train --config=configs/poly.py:demo,mhr --workdir=workdir/mhr

It leaves WORKDIR/library, the skills, and WORKDIR/router.safetensors, the router that weighs them.

Default   16 rows of all tasks together x 1000 steps x 2048 tokens on SmolLM2-135M and open48, 33 million tokens. Time
          and results were not measured here.
demo      16 rows x 8 steps x 128 tokens on the demo's tasks, as many rows as the demo's libraries. Expect 0.76 nats per
          target token on the sixteen training tasks and 1.77 on the eight held-out ones; with `mhr`, too, 0.75 and
          1.76 (docs/methods.md).
"""

import common


def get_config(variants: str | None = None):
    config = common.base()
    config.recipe = "poly"
    config.train.learning_rate = 1e-3
    return common.with_variants(config, variants, quick=quick, demo=demo)


def quick(config):
    common.quick(config)
    config.train.batch = 16  # all tasks share the rows of a step


def demo(config):
    common.demo(config)
    config.train.batch = 16
