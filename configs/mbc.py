"""MBC: cluster a private library, then train one expert per cluster (arXiv 2405.11157, section 3.1).

    modjax train --config=configs/private.py:demo --workdir=workdir/private
    modjax cluster --config=configs/mbc.py:demo,clusters=5,library=workdir/private/library --workdir=workdir/clusters
    modjax train --config=configs/mbc.py:demo,groups=workdir/clusters/clusters.json,batch=3 \\
        --workdir=workdir/mbc

Default   The paper's 10 clusters and training settings: clusters x 16 rows x 1000 steps x 2048 tokens. Time and results
          on SmolLM2-135M and open48 were not measured here. Clustering 256 experts of Phi-2's size took 8.6 seconds
          on a CPU (README.md).
epochs    In place of 1000 steps, as in the paper: `epochs=2` for the private experts to cluster, `epochs=3` for those
          of the clusters.
demo      The commands above, which read about as many rows for the cluster experts, 120, as for the private ones, 128.
          Expect the five families of the training tasks as clusters (adjusted Rand index 1.0), and with Arrow over the
          cluster experts 0.91 nats per target token on the training tasks, 2.08 on the held-out ones (`mbc_arrow` in
          docs/methods.md).

Several numbers of clusters, with pictures:

    modjax cluster --config=configs/mbc.py:demo,library=workdir/private/library --workdir=workdir/sweep --sweep=2:16

Random clusters of the same sizes, and with `cluster.method=embedding` clusters of the tasks' texts:

    modjax cluster --config=configs/mbc.py:demo,clusters=5,cluster.method=random,library=workdir/private/library \\
        --workdir=workdir/random --against=workdir/clusters/clusters.json
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.cluster.method = "mbc"  # "random": clusters of MBC's sizes; "embedding": k-means on the tasks' texts
    config.cluster.examples = 32  # examples per task whose embeddings are averaged
    return with_variants(config, variants)
