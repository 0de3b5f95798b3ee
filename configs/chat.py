"""Answers and conversations with a base model, or with a library with a router.

Cost: loading the model; SmolLM2-135M decodes tens of tokens per second on two CPU cores.

    modjax chat --config=configs/chat.py:quick,library=workdir/mbc/library
    modjax chat --config=configs/chat.py:model=DIR,generate.temperature=0
    modjax generate --config=configs/chat.py:quick,library=workdir/mbc/library --prompt="Give the plural of wolf."
    modjax generate --config=configs/chat.py --prompts=questions.jsonl --json > answers.jsonl
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.generate.update(max_new_tokens=256, temperature=0.7, top_p=0.9)
    return with_variants(config, variants)
