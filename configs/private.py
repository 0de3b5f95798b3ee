"""A private library: one expert per task, all trained in lockstep (arXiv 2405.11157, section 2.1).

    modjax train --config=configs/private.py:demo --workdir=workdir/private
    modjax train --config=configs/private.py:phi2,tasks=DIR --workdir=workdir/phi2

Default   The paper's settings on SmolLM2-135M and open48: 16 rows x 1000 steps x 2048 tokens, 33 million tokens per
          task. Time and results were not measured here.
quick     The same library in minutes on a CPU: 1 row x 16 steps x 128 tokens per task.
demo      Eight steps of `quick` on the sixteen training tasks of the demo: 16,384 tokens in all. Expect 0.15 nats per
          target token over their test examples where each task uses its own expert (`oracle` in docs/methods.md).
epochs    `:epochs=5`, the paper's number, in place of 1000 steps: each expert reads its own rows five times, with a
          schedule over its own steps, and ends by itself. `train.slots=N` trains N experts at a time, and the place of
          one that ends goes to the next. `evaluate_every=1,patience=2` stops by the validation loss of each epoch.
phi2      The paper's experts of Phi-2, or with `mistral` of Mistral-7B, on your own tasks, DIR. A step holds as many
          rows at a time as the device has memory for; `micro=4` holds four. Time, memory and results were not measured
          here.
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    return with_variants(base(), variants)
