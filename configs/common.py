"""What every config begins with: the embedded model and tasks, and the paper's training settings.

Configs take variants behind a colon, `configs/private.py:phi2,quick`: the names in VARIANTS, applied in order.
"""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from modjax.train.settings import Settings

# Of open48: sixteen tasks of five families for training, and eight that are held out, three of a sixth family.
DEMO_TASKS = (
    "dates_from_*", "dates_next_day",
    "words_plural", "words_past", "words_gerund", "words_superlative",
    "lists_backwards", "lists_ends", "lists_appended", "lists_rest",
    "records_person", "records_order", "records_meeting", "records_city",
    "numbers_from_words", "numbers_larger", "numbers_total", "numbers_smaller",
    "editing_*",
)  # fmt: skip


def base() -> ConfigDict:
    """A config that every verb can run."""
    return ConfigDict(
        {
            "model": "smollm2-135m",  # or a Hugging Face directory or id, or a .gguf file
            "quantize": placeholder(str),  # "int8" or "nf4": the blocks' linear maps in fewer bits; None: as they are
            "tasks": "open48",  # or a task folder, a Super-NaturalInstructions folder, a .jsonl file
            "only": (),  # shell patterns over task names, families and groups; () is all
            "method": "lora",  # "poly": skills that tasks share; "full": all weights, without adapters
            "poly": {"skills": 8, "heads": 1, "weights_rate": 100.0},  # more heads: MHR
            "groups": "private",  # "private", "shared", or the clusters.json of a cluster job
            "library": "",  # the library to cluster, evaluate or generate with; "" is the base model
            "train": dataclasses.asdict(Settings(save_every=100)),
            "cluster": {"clusters": 10, "sparsity": 0.5, "components": 64, "seed": 42, "restarts": 64},
            "router": {
                "name": "arrow",  # a function of modjax.routing, one's own as module:function, or a saved router's file
                "top_k": placeholder(int),  # None, here and below: the router's own
                "temperature": placeholder(float),
                "mix": placeholder(str),
                "options": "",  # its other arguments, as in Python: "length='singular', input_norm='unit'"
                "calibrate": placeholder(str),  # a text file of neutral prompts, or so many of each training task
            },
            "evaluate": {"examples": 100, "split": "test", "seed": 0, "max_new_tokens": 64, "length": 2048},
            "generate": {
                "max_new_tokens": 64,
                "temperature": 0.0,  # greedy
                "top_k": placeholder(int),  # None: all tokens
                "top_p": placeholder(float),  # None: all of the probability
                "stop": (),  # strings that end an answer
                "system": placeholder(str),  # None: the chat template's own
                "seed": 0,
            },
            "mesh": {"expert": -1, "fsdp": 1, "tensor": 1},  # -1: all the devices that are left
        },
        allow_dotted_keys=False,
    )


def phi2(config: ConfigDict) -> None:
    """Phi-2 as in the paper: q, k and v with one A, and the output projection, rank 4: 1,966,080 numbers an expert."""
    config.model = "microsoft/phi-2"
    config.train.tie = (("attn.q", "attn.k", "attn.v"),)


def mistral(config: ConfigDict) -> None:
    """Mistral-7B as in the paper: 3,407,872 numbers an expert."""
    config.model = "mistralai/Mistral-7B-v0.1"


def quick(config: ConfigDict) -> None:
    """Short rows and few steps at a high learning rate: minutes on a CPU for SmolLM2 and open48."""
    config.train.update(length=128, batch=1, steps=16, learning_rate=4e-3, dropout=0.0, system="", save_every=8)
    config.evaluate.update(examples=8, max_new_tokens=24, length=128, system="")
    config.generate.system = ""


def demo(config: ConfigDict) -> None:
    """The demo's tasks, read and trained on as `quick` says."""
    quick(config)
    config.only = DEMO_TASKS


def uniform(config: ConfigDict) -> None:
    """The mean of all experts in Arrow's place."""
    config.router.name = "uniform"


def mhr(config: ConfigDict) -> None:
    """Poly with weights for each of 64 blocks of a site's input and output, as in the paper's pretraining."""
    config.poly.heads = 64


VARIANTS = {"phi2": phi2, "mistral": mistral, "quick": quick, "demo": demo, "mhr": mhr, "uniform": uniform}


def with_variants(config: ConfigDict, variants: str | None) -> ConfigDict:
    """Applies the comma-separated names; a ValueError names one that there is not."""
    for name in filter(None, (variants or "").split(",")):
        if name not in VARIANTS:
            raise ValueError(f"variant {name!r}; expected some of {', '.join(VARIANTS)}")
        VARIANTS[name](config)
    return config
