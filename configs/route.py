"""A router made once and kept, and how it divides the work among a library's experts.

    modjax route --config=configs/route.py:quick --config.library=workdir/private/library --workdir=workdir/centroid \\
        --config.router.name=centroid
    modjax route --config=configs/route.py:quick --config.library=workdir/private/library --workdir=workdir/pooled \\
        --config.router.name=pooled --config.router.calibrate=4 --config.router.options="score='arrow'"
    modjax chat --config=configs/chat.py --config.library=workdir/private/library \\
        --config.router.name=workdir/pooled/router.safetensors
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.route = {"shown": 4}  # tasks of which an example is shown token by token
    return with_variants(config, variants)
