"""The demo: 16 private experts on SmolLM2-135M, MBC, cluster and shared experts under several routers, all compared.

Reproduces: the pipeline of arXiv 2405.11157 at small scale. Cost: about four minutes on two CPU cores. Expect: the
first seed of the table in README.md, and clusters equal to the five task families (adjusted Rand index 1.0).

    make demo        or    modjax demo --config=configs/demo.py --workdir=workdir/demo --report=report
"""

from common import base, demo, with_variants


def get_config(variants: str | None = None):
    config = base()
    demo(config)
    config.cluster.clusters = 5
    config.demo = {
        "rows": {"mbc": 3, "shared": 5},  # rows per step and expert; all three libraries read equally many rows in all
        "shown": ("dates_from_french", "words_past", "lists_rest", "editing_capitals"),  # tasks shown token by token
    }
    return with_variants(config, variants)
