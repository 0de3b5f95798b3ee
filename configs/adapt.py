"""Supervised adaptation: an expert for each held-out task from its first few examples, and its scores.

    modjax adapt --config=configs/adapt.py:quick --config.library=workdir/mbc/library --workdir=workdir/adapt/poly
    modjax adapt --config=configs/adapt.py:quick --config.library=workdir/mbc/library --workdir=workdir/adapt/lorahub \\
        --config.adapt.method=lorahub --config.adapt.retrieve=svd
    modjax adapt --config=configs/adapt.py:quick --config.adapt.method=lora --workdir=workdir/adapt/lora
    modjax adapt --config=configs/adapt.py:quick --config.adapt.method=shared --workdir=workdir/adapt/shared \\
        --config.library=workdir/shared/library

Other tasks than the collection's held-out ones are named by config.only. Early stopping looks at the validation loss
eight times a run; the paper looks at Rouge-L, --config.train.stop_by=rouge_l, which of eight examples is coarse.
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    return few_shot(base(), variants)


def few_shot(config, variants: str | None):
    """A config with what adaptation takes, and with its variants."""
    config.train.update(steps=100, batch=4, learning_rate=1e-3, patience=3)
    config.adapt = {
        "method": "poly",  # lora (from scratch), shared, mu, poly, poly_z, mhr, lorahub, cat
        "examples": 8,  # of split "train", the first of each task; 0: all
        "validation": 8,  # of split "validation", for early stopping
        "retrieve": "none",  # of the library's experts: none (all), random, lora (cosine), svd (embedding)
        "experts": 5,  # retrieved for each task
        "heads": 8,  # mhr: blocks with weights of their own
        "weights_rate": 100.0,  # poly, poly_z, mhr: the learning rate of the weights over that of the experts
        "router": "",  # poly, poly_z, mhr: what was saved beside trained skills, to start from its mean weights
        "cat_rate": 1e-2,  # cat: the learning rate of the coefficients
        "budget": 40,  # lorahub: evaluations of the loss
    }
    config = with_variants(config, variants)
    config.train.evaluate_every = max(1, config.train.steps // 8)
    return config
