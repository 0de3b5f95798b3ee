"""MBC: cluster a private library, then train one expert a cluster.

    modjax cluster --config=configs/mbc.py:quick --config.library=workdir/private/library --workdir=workdir/clusters
    modjax train --config=configs/mbc.py:quick --config.groups=workdir/clusters/clusters.json --workdir=workdir/mbc

How many clusters, with pictures; what random clusters of the same sizes, and clusters of the tasks' texts, are like:

    modjax cluster --config=configs/mbc.py:quick --config.library=workdir/private/library --workdir=workdir/clusters \\
        --sweep=2:16
    modjax cluster --config=configs/mbc.py:quick --config.library=workdir/private/library --workdir=workdir/random \\
        --config.cluster.method=random --against=workdir/clusters/clusters.json
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.cluster.method = "mbc"  # "random": clusters of MBC's sizes; "embedding": k-means on the tasks' texts
    config.cluster.examples = 32  # of a task, whose mean embedding is taken
    return with_variants(config, variants)
