"""Your own data: a data set of the hub, or local Parquet, Arrow, CSV or JSON files, by the names of their columns.

    modjax data ls    --config=configs/data.py:gsm8k
    modjax data stat  --config=configs/data.py:gsm8k --split=test
    modjax train      --config=configs/data.py:gsm8k,train.length=512,steps=100 --workdir=workdir/gsm8k
    modjax data write --config=configs/data.py:flan --only=cot_* --to=workdir/cot

Default   One expert for each value of the column `topic` in data/*.parquet, at most 1,000 examples drawn of each.
gsm8k     A data set of the hub that is one task; the first command downloads it, later ones need no network.
flan      The 256 tasks of FLAN v2 that the paper trains on.

All settings of such a dictionary are in modjax/data/sources/dataset.py. Nothing was measured here.
"""

from common import base, with_variants


def gsm8k(config) -> None:
    """Word problems: one task with splits for training and testing. It has none for validation."""
    config.tasks = {
        "id": "openai/gsm8k",
        "subset": "main",
        "columns": {"source": "question", "target": "answer"},
    }


def get_config(variants: str | None = None):
    config = base()
    config.tasks = {
        "files": "data/*.parquet",
        "columns": {"source": "{passage}\nQuestion: {question}\nAnswer:", "target": "answer", "task": "topic"},
        "most": 1000,  # examples of a task, drawn with the seed
        "seed": 42,
    }
    return with_variants(config, variants, gsm8k=gsm8k)
