"""The demo: 16 private experts on SmolLM2-135M, MBC, cluster and shared experts, all compared.

Six to ten minutes on two CPU cores. Run it with

    make demo        or    modjax demo --config=configs/demo.py --workdir=workdir/demo --report=report
"""

from common import base, quick, with_variants

TASKS = (
    "dates_from_*", "dates_next_day",
    "words_plural", "words_past", "words_gerund", "words_superlative",
    "lists_backwards", "lists_ends", "lists_appended", "lists_rest",
    "records_person", "records_order", "records_meeting", "records_city",
    "numbers_from_words", "numbers_larger", "numbers_total", "numbers_smaller",
    "editing_*",
)  # fmt: skip


def get_config(variants: str | None = None):
    config = base()
    quick(config)
    config.only = TASKS
    config.cluster.clusters = 5
    config.demo = {
        "rows": {"mbc": 3, "shared": 5},  # rows a step and expert; all three trainings see as many rows in all
        "shown": ("dates_from_french", "words_past", "lists_rest", "editing_capitals"),  # in the routing view
    }
    return with_variants(config, variants)
