import dataclasses
import json

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from modjax.errors import InputError
from modjax.models import export, hf, tokenizer, weights
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.weights import fingerprint, leaves
from modjax.ops.rope import Scaling

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 17))


def torch_logits(path):
    import torch
    import transformers

    model, notes = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not notes["missing_keys"] and not notes["unexpected_keys"], notes
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS_BT)).logits.numpy()


@pytest.fixture(scope="module")
def logits(run):
    return lambda decoder: decoder.logits(run(decoder, jnp.asarray(TOKENS_BT)))


def changed(decoder):
    """The decoder with other weights, so that copying the source's weights would be noticed."""
    return jax.tree.map(lambda leaf: leaf * 1.25, decoder)


@pytest.fixture(scope="module", params=drawn.families())
def written(request, torch_model, tmp_path_factory):
    """(folder of a tiny model saved by transformers, a decoder with other weights, folder to which it was exported)."""
    path = tmp_path_factory.mktemp(request.param)
    torch_model(request.param).save_pretrained(path / "theirs")
    decoder = changed(hf.read(path / "theirs"))
    export.write(decoder, path / "ours", like=path / "theirs")
    return path / "theirs", decoder, path / "ours"


def test_transformers_gives_the_same_logits(written, logits):
    _, decoder, path = written
    np.testing.assert_allclose(torch_logits(path), logits(decoder), atol=1e-4, rtol=0)


def test_written_then_read_is_the_same_decoder(written):
    _, decoder, path = written
    again = hf.read(path)
    assert again.config == decoder.config
    for (name, leaf), found in zip(leaves(decoder).items(), leaves(again).values(), strict=True):
        np.testing.assert_array_equal(leaf, found, err_msg=name)


def test_the_tensors_are_those_that_transformers_writes(written):
    """The same names, and the same bits times the factor that `changed` applied."""
    theirs, _, ours = written
    before, after = load_file(theirs / hf.SINGLE), load_file(ours / hf.SINGLE)
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        np.testing.assert_array_equal(tensor, 1.25 * before[name], err_msg=name)


@pytest.fixture(scope="module")
def decoder(checkpoint):
    return hf.read(checkpoint)


def test_shards_with_their_index(decoder, checkpoint, tmp_path, logits):
    export.write(decoder, tmp_path / "out", like=checkpoint, shard_bytes=20_000)
    index = json.loads((tmp_path / "out" / hf.INDEX).read_text())
    files = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert len(files) > 2 and not (tmp_path / "out" / hf.SINGLE).exists()
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(decoder))
    assert all(file.stat().st_size < 22_000 for file in (tmp_path / "out").glob("*.safetensors"))
    assert fingerprint(hf.read(tmp_path / "out")) == fingerprint(decoder)
    np.testing.assert_allclose(torch_logits(tmp_path / "out"), logits(decoder), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_dtypes(decoder, checkpoint, tmp_path, name):
    export.write(decoder, tmp_path / "out", like=checkpoint, dtype=name)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == name
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == getattr(torch, name)
    up_OI = decoder.blocks.mlp.up.kernel[...][1].T
    found_OI = jnp.asarray(model.model.layers[1].mlp.up_proj.weight.detach().float().numpy())
    np.testing.assert_array_equal(found_OI, up_OI.astype(name).astype(jnp.float32))


def test_values_beyond_the_dtype_are_named(decoder, checkpoint, tmp_path):
    large = jax.tree.map(lambda leaf: leaf * 1e6, decoder)
    with pytest.raises(
        InputError, match="model.layers.0.self_attn.k_proj.weight: holds values that are not finite in float16"
    ):
        export.write(large, tmp_path / "out", like=checkpoint, dtype="float16")
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_and_its_files_are_copied(decoder, checkpoint, word_tokenizer, tmp_path):
    import shutil

    path = shutil.copytree(checkpoint, tmp_path / "with tokenizer")
    word_tokenizer.save_pretrained(path)
    (path / "generation_config.json").write_text('{"eos_token_id": [1, 3]}')
    (path / "optimizer.json").write_text("{}")
    export.write(decoder, tmp_path / "out", like=path)
    again = tokenizer.from_directory(tmp_path / "out")
    assert again("w1 w2")["input_ids"] == word_tokenizer("w1 w2")["input_ids"]
    assert tokenizer.ends(tmp_path / "out") == (1, 3, 2)  # config.json names 2
    assert not (tmp_path / "out" / "optimizer.json").exists()


RANDOM = {"V": 61, "D": 32, "N": 4, "K": 2, "H": 8, "F": 48, "L": 2, "context": 64, "rope_dim": 8}
DIVISORS = (1.0, 1.0, 2.5, 8.0)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig("llama", **RANDOM, rope_theta=500.0, norm_eps=1e-3),
        ModelConfig("llama", **RANDOM | {"H": 16, "rope_dim": 16}, tied=True),
        ModelConfig("llama", **RANDOM, rope_scaling=Scaling("linear", 4.0)),
        ModelConfig("llama", **RANDOM, rope_scaling=Scaling("longrope", original=64, short=DIVISORS, long=DIVISORS)),
        ModelConfig("qwen2", **RANDOM, qkv_bias=True),
        ModelConfig("qwen3", **RANDOM, qk_norm="head"),
    ],
    ids=["llama", "wide heads", "linear", "factors", "qwen2", "qwen3"],
)
def test_a_config_is_made_where_there_is_none_to_copy(config, tmp_path, logits):
    decoder = jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 2 else leaf, Decoder.init(config, jax.random.key(0)))
    export.write(decoder, tmp_path / "out")
    assert hf.config(tmp_path / "out") == config
    np.testing.assert_allclose(torch_logits(tmp_path / "out"), logits(decoder), atol=1e-4, rtol=0)


def test_a_config_that_cannot_be_made(tmp_path):
    phi = ModelConfig("phi", **RANDOM, norm="layer", parallel=True, gated=False)
    with pytest.raises(InputError, match="cannot build config.json for family 'phi'; pass like=CHECKPOINT_DIR"):
        export.hf_config(phi)
    with pytest.raises(InputError, match="cannot build config.json for ModelConfig"):
        export.hf_config(ModelConfig("llama", **RANDOM, logit_softcap=30.0))


def test_like_of_another_model(decoder, checkpoint, tmp_path):
    found = json.loads((checkpoint / "config.json").read_text())
    with pytest.raises(InputError, match="like: describes another model"):
        export.write(decoder, tmp_path / "out", like=found | {"rms_norm_eps": 0.5})
    export.write(decoder, tmp_path / "out", like=found)
    assert hf.config(tmp_path / "out") == decoder.config


def test_quantised_weights_are_refused(decoder, checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"blocks.attn.k.kernel.codes: quantised weights cannot be written"):
        export.write(weights.quantised(decoder, "int8"), tmp_path / "out", like=checkpoint)


def test_nothing_is_overwritten(decoder, checkpoint, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "thesis.txt", checkpoint):
        with pytest.raises(InputError, match="exists; expected a new or an empty folder"):
            export.write(decoder, path, like=checkpoint)
    (tmp_path / "out").mkdir()
    export.write(decoder, tmp_path / "out", like=checkpoint)
    assert (tmp_path / "out" / hf.SINGLE).exists()


def test_other_dtypes_are_refused(decoder, checkpoint, tmp_path):
    with pytest.raises(InputError, match="dtype='float64': expected one of float32, float16, bfloat16"):
        export.write(decoder, tmp_path / "out", like=checkpoint, dtype=np.float64)


def test_a_fingerprint_outlives_the_dtype(decoder, checkpoint, tmp_path):
    export.write(decoder, tmp_path / "out", like=checkpoint, dtype=jnp.bfloat16)
    assert fingerprint(hf.read(tmp_path / "out")) == fingerprint(decoder)
    assert dataclasses.asdict(hf.config(tmp_path / "out")) == dataclasses.asdict(decoder.config)
