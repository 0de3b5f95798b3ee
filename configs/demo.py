"""The demo: 16 private experts on SmolLM2-135M, MBC, cluster and shared experts, all compared.

Six to thirteen minutes on two CPU cores. Run it with

    make demo        or    modjax demo --config=configs/demo.py --workdir=workdir/demo --report=report
"""

from common import base, demo, with_variants


def get_config(variants: str | None = None):
    config = base()
    demo(config)
    config.cluster.clusters = 5
    config.demo = {
        "rows": {"mbc": 3, "shared": 5},  # rows a step and expert; all three trainings see as many rows in all
        "shown": ("dates_from_french", "words_past", "lists_rest", "editing_capitals"),  # in the routing view
    }
    return with_variants(config, variants)
