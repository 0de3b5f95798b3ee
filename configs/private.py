"""A private library: one expert a task, trained in lockstep with the paper's settings.

modjax train --config=configs/private.py:quick --workdir=workdir/private       # SmolLM2 and open48, on a CPU
modjax train --config=configs/private.py:phi2 --config.tasks=DIR --workdir=DIR  # Phi-2 on one's own tasks
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    return with_variants(base(), variants)
