"""A router built once and saved, and an analysis of how it divides the work among a library's experts.

Cost: one forward pass over the prompts that are analysed, and what the router learns from. Expect: 42.2 % of prompts to
their own expert for Arrow over the demo's private experts, 61.7 % over its cluster experts (README.md).

    modjax route --config=configs/route.py:quick,library=workdir/private/library,method.router.name=centroid \\
        --workdir=workdir/centroid
    modjax route --config=configs/route.py:quick,library=workdir/private/library,method.router.name=pooled \\
        --config.method.router.score=arrow --config.method.calibrate=4 --workdir=workdir/pooled
    modjax chat --config=configs/chat.py:library=workdir/private/library \\
        --config.method.router.name=workdir/pooled/router.safetensors
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.route = {"shown": 4}  # number of tasks of which an example is shown token by token
    return with_variants(config, variants)
