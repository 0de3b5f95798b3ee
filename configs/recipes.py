"""Recipes: private libraries of 256 or 64 experts at the paper's settings, on devices that a lab has.

    modjax plan  --config=configs/recipes.py:phi2_v5e_256
    modjax train --config=configs/recipes.py:phi2_v5e_256,tasks=DIR --workdir=workdir/phi2

The first command needs none of the devices: see docs/plan.md, which has the plans of all recipes in a table. They are
kept in configs/plans, and a test makes them anew. The second trains an expert for each of your tasks, DIR. None of
these jobs was run on its devices here.

phi2_v5e_256      Phi-2 x 256 on TPU v5e-256, 16x16 chips: each chip has the whole base and one expert.
phi2_v5e_16       Phi-2 x 256 on TPU v5e-16, 4x4 chips: 16 experts on each.
mistral_v5p_128   Mistral-7B x 256 on TPU v5p-128, which is 4x4x4 chips: Google counts their TensorCores, two a chip.
llama70b_v5p_128  Llama-2-70B x 64 on the same; four chips share a base.
phi2_h100_8       Phi-2 x 256 on a machine with eight H100.
smollm2_h100      SmolLM2-135M x 256 on one H100.
smollm2_laptop    SmolLM2-135M x 256 on a laptop, with the short rows of `quick` and 100 steps: 12,800 tokens per task.
"""

from common import base, mistral, phi2, quick, with_variants

TARGETS = 512  # of a row of 2048 tokens, as plans assume


def get_config(variants: str | None = None):
    return with_variants(base(), variants, **RECIPES)


def phi2_v5e_256(config):
    phi2(config)
    config.train.micro = 2
    config.plan = {"topology": "v5e:16x16", "experts": 256, "targets": TARGETS}


def phi2_v5e_16(config):
    phi2(config)
    config.train.micro = 2
    config.plan = {"topology": "v5e:4x4", "experts": 256, "targets": TARGETS}


def mistral_v5p_128(config):
    mistral(config)
    config.train.micro = 8
    config.plan = {"topology": "v5p:4x4x4", "experts": 256, "targets": TARGETS}


def llama70b_v5p_128(config):
    config.model = "meta-llama/Llama-2-70b-hf"
    config.train.micro = 1
    config.mesh.fsdp = 4
    config.plan = {"topology": "v5p:4x4x4", "experts": 64, "targets": TARGETS}


def phi2_h100_8(config):
    phi2(config)
    config.train.micro = 8
    config.plan = {"topology": "h100:8", "experts": 256, "targets": TARGETS}


def smollm2_h100(config):
    config.train.micro = 32
    config.plan = {"topology": "h100:1", "experts": 256, "targets": TARGETS}


def smollm2_laptop(config):
    quick(config)
    config.train.update(steps=100, micro=8, save_every=10)
    config.plan = {"topology": "laptop", "experts": 256, "targets": 32}


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        phi2_v5e_256,
        phi2_v5e_16,
        mistral_v5p_128,
        llama70b_v5p_128,
        phi2_h100_8,
        smollm2_h100,
        smollm2_laptop,
    )
}
