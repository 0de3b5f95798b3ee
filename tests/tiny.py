"""A tiny model that reads a few words, three experts, and four tasks, one of them held out."""

import jax
import numpy as np
import pytest
import tokenizers
import transformers

from modjax.data.tasks import Example, Task, Tasks
from modjax.experts.library import Library
from modjax.model import Model
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder

WORDS = "red green blue one two three cat dog bird yes no what is the".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def model():
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<end>", *WORDS])}
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    bare.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", unk_token="<unk>")
    config = ModelConfig(
        family="llama", V=len(vocabulary), D=16, N=2, K=1, H=8, F=24, L=2, context=64, rope_dim=8, tied=True
    )
    return Model("tiny", Decoder.init(config, jax.random.key(0)), tokenizer)


@pytest.fixture(scope="module")
def library():
    rng = np.random.default_rng(0)
    sites = {"attn.q": (16, 16), "mlp.down": (24, 16)}
    return Library.from_arrays(
        {site: (rng.normal(size=(2, 3, 2, i)), rng.normal(size=(2, 3, 2, o))) for site, (i, o) in sites.items()},
        names=["a", "b", "c"],
    )


@pytest.fixture(scope="module")
def tasks():
    def task(name, target, **info):
        examples = [
            Example(f"what is {' '.join([word] * (1 + i % 3))} {other}", target, split)
            for split in ("train", "test")
            for i, word in enumerate(WORDS[:5])
            for other in WORDS[5:7]
        ]
        return Task(name, tuple(examples), **info)

    return Tasks([task("a", "yes"), task("b", "no cat"), task("c", "dog"), task("d", "bird", held_out=True)])
