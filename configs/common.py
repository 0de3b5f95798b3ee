"""The start of every config: the embedded model and tasks, and the training settings of the paper (arXiv 2405.11157).

Configs take variants after a colon, applied in order: the names in VARIANTS, and values of keys, as in
`configs/private.py:phi2,tasks=DIR,train.rank=8`. A key may be given by its last part where only one key ends in it.
"""

import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from modjax.cli.variants import apply
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
            "model": "smollm2-135m",  # the embedded model, a Hugging Face directory or id, or a .gguf file
            "quantize": placeholder(str),  # "int8" or "nf4": the linear maps of blocks in fewer bits; None: unquantised
            "tasks": FieldReference(
                "open48", field_type=object
            ),  # or "flan", files, an id of the hub, a table: docs/data.md
            "only": (),  # shell patterns of task names, families and groups; (): all
            "recipe": "lora",  # "lora": one LoRA per group; "poly": skills that tasks share; "full": all weights
            "poly": {
                "skills": 8,  # LoRAs that all tasks share
                "heads": 1,  # blocks with their own weights; more than 1: MHR
                "weights_rate": 100.0,  # learning rate of the weights over that of the skills
            },
            "groups": "private",  # "private", "shared", or the clusters.json of a cluster job
            "library": "",  # the library to cluster, evaluate or generate with; "" is the base model
            "train": dataclasses.asdict(Settings(save_every=100)) | {"system": placeholder(str)},
            "cluster": {
                "clusters": 10,  # number of clusters
                "sparsity": 0.5,  # share of the smallest entries of an update that are set to 0
                "components": 64,  # rank of the SVD in which updates are compared
                "seed": 42,
                "restarts": 64,  # starts of k-means; the best result is kept
            },
            "method": {  # see modjax.studies.methods; other parts and options may be added
                "router": {
                    "name": "arrow",  # a function of modjax.routing, your own as module:function, or a saved file
                    "top_k": placeholder(int),  # None, here and below: the router's default
                    "temperature": placeholder(float),
                    "mix": placeholder(str),
                },
                "calibrate": placeholder(str),  # a text file of prompts, or a number of prompts per training task
            },
            "evaluate": {
                "examples": 100,  # number per task; 0: all
                "split": "test",
                "seed": 0,  # seed of the choice of examples
                "max_new_tokens": 64,
                "length": 2048,  # largest number of tokens of an example
                "system": placeholder(str),  # None: the chat template's default
            },
            "generate": {
                "max_new_tokens": 64,
                "temperature": 0.0,  # 0: greedy
                "top_k": placeholder(int),  # None: all tokens
                "top_p": placeholder(float),  # None: all of the probability
                "stop": (),  # strings that end an answer
                "system": placeholder(str),  # None: the chat template's default
                "seed": 0,
            },
            "mesh": {
                "expert": -1,  # devices along the axis; -1: all remaining devices
                "fsdp": 1,
                "tensor": 1,
            },
        },
        allow_dotted_keys=False,
    )


def phi2(config: ConfigDict) -> None:
    """Phi-2 as in the paper: q, k and v with one A, and the output projection, rank 4: 1,966,080 numbers per expert.

    What a step needs beyond the model grows with `train.micro`, not with the number of tasks; see `Settings`.
    """
    config.model = "microsoft/phi-2"
    config.train.tie = (("attn.q", "attn.k", "attn.v"),)


def mistral(config: ConfigDict) -> None:
    """Mistral-7B as in the paper: 3,407,872 numbers per expert. Memory is as said of `phi2`."""
    config.model = "mistralai/Mistral-7B-v0.1"


def flan(config: ConfigDict) -> None:
    """The paper's 256 tasks of FLAN v2, a download of many gigabytes. What is longer than a row is cut."""
    config.tasks = "flan"
    config.train.too_long = "truncate_all"
    config.evaluate.too_long = "truncate_all"


def quick(config: ConfigDict) -> None:
    """Short rows and few steps at a high learning rate: minutes on a CPU for SmolLM2 and open48."""
    config.train.update(length=128, batch=1, steps=16, learning_rate=4e-3, dropout=0.0, system="", save_every=8)
    config.evaluate.update(examples=8, max_new_tokens=24, length=128, system="")
    config.generate.system = ""


def demo(config: ConfigDict) -> None:
    """The demo's tasks, with the settings of `quick` but for the steps, which benchmarks/demo_seeds.py has chosen."""
    quick(config)
    config.only = DEMO_TASKS
    config.train.steps = 8


def uniform(config: ConfigDict) -> None:
    """The mean of all experts in place of Arrow."""
    config.method.router = {"name": "uniform"}


def mhr(config: ConfigDict) -> None:
    """Poly with weights for each of 64 blocks of a site's input and output, as in the paper's pretraining."""
    config.poly.heads = 64


VARIANTS = {one.__name__: one for one in (phi2, mistral, flan, quick, demo, mhr, uniform)}


def adaptation(config: ConfigDict) -> None:
    """The settings of few-shot adaptation; see `validated`."""
    config.train.update(steps=100, batch=4, learning_rate=1e-3, patience=3)
    config.adapt = {
        "method": "poly",  # lora (from scratch), shared, mu, poly, poly_z, mhr, lorahub, cat
        "examples": 8,  # of split "train", the first of each task; 0: all
        "validation": 8,  # of split "validation", for early stopping
        "retrieve": "none",  # experts to start from: none (all), random, lora (cosine), svd (embedding)
        "experts": 5,  # number of retrieved experts per task
        "heads": 8,  # mhr: blocks with their own weights
        "weights_rate": 100.0,  # poly, poly_z, mhr: learning rate of the weights relative to the experts'
        "router": "",  # poly, poly_z, mhr: the router saved with trained skills, to start from its mean weights
        "cat_rate": 1e-2,  # cat: learning rate of the coefficients
        "budget": 40,  # lorahub: evaluations of the loss
    }


def validated(config: ConfigDict) -> ConfigDict:
    """Validates eight times per run, or after each epoch, unless `train.evaluate_every` is set.

    Call it after the variants.
    """
    often = 1 if config.train.epochs else max(1, config.train.steps // 8)
    config.train.evaluate_every = config.train.evaluate_every or often
    return config


def with_variants(config: ConfigDict, variants: str | None, **own: Callable[[ConfigDict], None]) -> ConfigDict:
    """Applies comma-separated names and KEY=VALUE settings in order; `own`: variants of the config file itself.

    Raises InputError, which is a ValueError, for an unknown name or key and for a value that does not fit.
    """
    apply(config, variants or "", VARIANTS | own)
    return config
