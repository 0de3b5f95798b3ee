"""Supervised adaptation: an expert for each held-out task from its first few examples, and its scores.

Reproduces: section 4 of arXiv 2405.11157 (supervised adaptation) at small scale.
Cost: `quick` takes 16 steps of one row of 128 tokens per task, a minute on two CPU cores.
Expect: on the demo's held-out tasks, after eight steps, 0.30 to 0.35 nats per target token for LoRA, mu and Poly, 1.63
for LoraHub (docs/methods.md).

    modjax adapt --config=configs/adapt.py:quick,library=workdir/mbc/library --workdir=workdir/adapt/poly
    modjax adapt --config=configs/adapt.py:quick,library=workdir/mbc/library,adapt.method=lorahub,retrieve=svd \\
        --workdir=workdir/adapt/lorahub
    modjax adapt --config=configs/adapt.py:quick,adapt.method=lora --workdir=workdir/adapt/lora
    modjax adapt --config=configs/adapt.py:quick,adapt.method=shared,library=workdir/shared/library \\
        --workdir=workdir/adapt/shared

With `epochs=N` in place of steps, each task is adapted for N passes over its own rows and validated after each.

`only` names other tasks than the held-out ones of the collection. Early stopping uses the validation loss; the paper
uses Rouge-L, train.stop_by=rouge_l, which is coarse with eight examples.
"""

from common import adaptation, base, validated, with_variants


def get_config(variants: str | None = None):
    config = base()
    adaptation(config)
    return validated(with_variants(config, variants))
