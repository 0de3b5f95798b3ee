"""Texts that follow a prompt keep the white space that they begin with, also with a tokenizer that would drop it."""

import pytest
import tokenizers
import transformers

from modjax.eval.benchmarks.continuation import Continued
from modjax.models.answer import Answer


def _tokenizer(like):
    """Words with their spaces, decoded as by Llama and Mistral, which drop the first space, or as by GPT-2."""
    bare = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=like == "llama"))
    if like == "llama":
        bare.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")]
        )
        bare.decoder = tokenizers.decoders.Sequence(
            [
                tokenizers.decoders.Replace("\u2581", " "),
                tokenizers.decoders.ByteFallback(),
                tokenizers.decoders.Fuse(),
                tokenizers.decoders.Strip(" ", 1, 0),
            ]
        )
    else:
        bare.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        bare.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=90, show_progress=False, special_tokens=["</s>"])
    bare.train_from_iterator(["a def f(x):\n    return x + 1\n", "    return y\n  a"] * 3, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>")


def _characters(words, text, like):
    """A token for each character of a text, as the model may write it."""
    space, line = ("\u2581", "\n") if like == "llama" else ("\u0120", "\u010a")
    return words.convert_tokens_to_ids(list(text.replace(" ", space).replace("\n", line)))


@pytest.mark.parametrize("like", ["llama", "gpt2"])
@pytest.mark.parametrize("text", ["    return x + 1\n    return y", " a", "a", "\n  a"])
def test_the_beginning_is_kept(like, text):
    words = _tokenizer(like)
    tokens = _characters(words, text, like)
    answer = Answer(Continued(words), [words.eos_token_id], ["return y"])
    said = "".join([answer.push([token]) for token in tokens] + [answer.finish()])
    assert None not in tokens and said == text.partition("return y")[0]


def test_llama_would_drop_a_space():
    words = _tokenizer("llama")
    tokens = _characters(words, "    return", "llama")
    assert words.decode(tokens) == "   return" and Continued(words).decode(tokens) == "    return"
