"""MBC: cluster a private library, then train one expert a cluster.

modjax cluster --config=configs/mbc.py:quick --config.library=workdir/private/library --workdir=workdir/clusters
modjax train --config=configs/mbc.py:quick --config.groups=workdir/clusters/clusters.json --workdir=workdir/mbc
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    return with_variants(base(), variants)
