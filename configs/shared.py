"""The shared expert: one LoRA on all tasks together, the baseline of every library (arXiv 2405.11157, section 2.1).

    modjax train --config=configs/shared.py:demo,batch=5,steps=25 --workdir=workdir/shared
    modjax evaluate --config=configs/evaluate.py:demo,library=workdir/shared/library --workdir=workdir/shared-scores

Default   The paper's settings on SmolLM2-135M and open48: 16 rows x 1000 steps x 2048 tokens, 33 million tokens. Time
          and results were not measured here.
epochs    `:epochs=1`, the paper's number, in place of 1000 steps.
quick     1 row x 16 steps x 128 tokens, seconds on a CPU after compilation.
demo      `quick` on the demo's tasks. With 5 rows x 25 steps, as above, it reads about as many rows as the demo's
          private library: expect 0.24 nats per target token on the sixteen training tasks, 1.98 on the eight held-out
          ones (docs/methods.md).
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.groups = "shared"
    config.train.dropout = 0.0  # as in the paper's reference code
    return with_variants(config, variants)
