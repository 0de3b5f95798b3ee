import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modjax.errors import InputError
from modjax.models import hf
from modjax.models.weights import leaves


def test_shards_equal_the_single_file(torch_model, tmp_path, checkpoint):
    torch_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same(hf.read(tmp_path), hf.read(checkpoint))


def test_bfloat16_file_and_bfloat16_weights(torch_model, tmp_path, checkpoint):
    model = torch_model("llama")
    model.bfloat16().save_pretrained(tmp_path)
    as_saved, cast = hf.read(tmp_path, jnp.bfloat16), hf.read(checkpoint, jnp.bfloat16)
    assert as_saved.embed[...].dtype == jnp.bfloat16
    assert_same(as_saved, cast)


def test_layout_places_every_leaf(checkpoint):
    seen = []

    def layout(path, leaf):
        seen.append((path, leaf.shape))
        return jax.sharding.SingleDeviceSharding(jax.devices()[-1])

    decoder = hf.read(checkpoint, layout=layout)
    assert ("blocks.attn.q.kernel", (3, 32, 32)) in seen
    assert seen == [(path, leaf.shape) for path, leaf in leaves(decoder).items()]
    assert all(leaf.devices() == {jax.devices()[-1]} for leaf in jax.tree.leaves(decoder))


def assert_same(first, second):
    for (path, a), b in zip(leaves(first).items(), leaves(second).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.fixture
def damaged(tmp_path, checkpoint):
    """A function that writes a copy of the checkpoint whose tensors have been changed."""

    def write(change):
        path = tmp_path / "damaged"
        shutil.copytree(checkpoint, path)
        tensors = load_file(path / hf.SINGLE)
        change(tensors)
        save_file(tensors, path / hf.SINGLE)
        return path

    return write


UP = "model.layers.1.mlp.up_proj.weight"


def test_missing_tensor(damaged):
    with pytest.raises(InputError, match=rf"{hf.SINGLE}: '{UP}' is missing \(for blocks.mlp.up.kernel\)$"):
        hf.read(damaged(lambda tensors: tensors.pop(UP)))


def test_left_over_tensor(damaged):
    with pytest.raises(InputError, match=r"'model.layers.0.mlp.extra.weight' is not a tensor of this llama decoder$"):
        hf.read(damaged(lambda tensors: tensors.update({"model.layers.0.mlp.extra.weight": np.ones(3, np.float32)})))


def test_a_layer_too_many(damaged):
    with pytest.raises(InputError, match="layers.3.mlp.up_proj"):
        hf.read(damaged(lambda tensors: tensors.update({UP.replace("1", "3"): tensors[UP]})))


def test_known_buffers_are_ignored(damaged, checkpoint):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    assert_same(hf.read(damaged(lambda tensors: tensors.update(buffer))), hf.read(checkpoint))


def test_masks_and_tables_of_older_files_are_ignored(torch_model, tmp_path):
    for family, buffers in BUFFERS.items():
        path = tmp_path / family
        torch_model(family).save_pretrained(path)
        expected = hf.read(path)
        tensors = load_file(path / hf.SINGLE)
        save_file(tensors | {name: np.ones((1, 1, 4, 4), bool) for name in buffers}, path / hf.SINGLE)
        assert_same(hf.read(path), expected)


BUFFERS = {
    "gpt2": ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"],
    "gpt_neo": ["transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"],
    "gpt_neox": [
        "gpt_neox.layers.0.attention.bias",
        "gpt_neox.layers.0.attention.masked_bias",
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
    ],
}


def test_a_head_beside_a_tied_embedding_counts_if_it_differs(torch_model, tmp_path, run):
    import torch
    import transformers

    torch_model("gpt2").save_pretrained(tmp_path)
    expected, tensors = hf.read(tmp_path), load_file(tmp_path / hf.SINGLE)
    embed = tensors["transformer.wte.weight"]
    save_file(tensors | {"lm_head.weight": embed.copy()}, tmp_path / hf.SINGLE)
    assert_same(hf.read(tmp_path), expected)
    save_file(tensors | {"lm_head.weight": embed[::-1].copy()}, tmp_path / hf.SINGLE, {"format": "pt"})
    decoder, tokens_BT = hf.read(tmp_path), np.arange(10)[None]
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)(torch.tensor(tokens_BT)).logits
    assert not decoder.config.tied
    np.testing.assert_allclose(decoder.logits(run(decoder, jnp.asarray(tokens_BT))), theirs, atol=1e-4, rtol=0)


def test_files_of_the_bare_model(torch_model, tmp_path):
    torch_model("gpt2").save_pretrained(tmp_path)
    expected = hf.read(tmp_path)
    tensors = load_file(tmp_path / hf.SINGLE)
    save_file({name.removeprefix("transformer."): array for name, array in tensors.items()}, tmp_path / hf.SINGLE)
    assert_same(hf.read(tmp_path), expected)


def test_both_names_of_the_head_of_gpt_neox(torch_model, tmp_path):
    torch_model("gpt_neox").save_pretrained(tmp_path)
    expected = hf.read(tmp_path)
    tensors = load_file(tmp_path / hf.SINGLE)
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    save_file(tensors, tmp_path / hf.SINGLE)
    assert_same(hf.read(tmp_path), expected)


def test_wrong_shape(damaged):
    with pytest.raises(InputError, match=rf"'{UP}' has shape \(32, 48\), the config expects \(48, 32\)"):
        hf.read(damaged(lambda tensors: tensors.update({UP: np.ascontiguousarray(tensors[UP].T)})))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(damaged, value):
    with pytest.raises(InputError, match=rf"{hf.SINGLE}: '{UP}' holds NaN or infinite values"):
        hf.read(damaged(lambda tensors: np.put(tensors[UP], 5, value)))


@pytest.mark.parametrize("content", [b"", b"\x80\x04not safetensors", None])
def test_truncated_or_foreign_file(damaged, content):
    path = damaged(lambda tensors: None)
    file = path / hf.SINGLE
    file.write_bytes(file.read_bytes()[:-10] if content is None else content)
    with pytest.raises(InputError, match=f"{hf.SINGLE}: is truncated, missing or not a safetensors file"):
        hf.read(path)


def test_shard_that_is_not_there(torch_model, tmp_path):
    torch_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        hf.read(tmp_path)


def test_pickled_weights_are_not_opened(damaged):
    path = damaged(lambda tensors: None)
    (path / hf.SINGLE).rename(path / "pytorch_model.bin")
    with pytest.raises(InputError, match="save_pretrained"):
        hf.read(path)


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_config_that_is_no_object(damaged, content):
    path = damaged(lambda tensors: None)
    (path / "config.json").unlink() if content is None else (path / "config.json").write_text(content)
    with pytest.raises(InputError, match="config.json"):
        hf.read(path)


def test_config_of_another_size(damaged):
    path = damaged(lambda tensors: None)
    found = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(found | {"intermediate_size": 50}))
    with pytest.raises(InputError, match=r"has shape \(32, 48\), the config expects \(32, 50\)"):
        hf.read(path)


def test_find_takes_a_directory(checkpoint):
    assert hf.find(str(checkpoint)) == checkpoint


@pytest.mark.parametrize(
    ("name", "says"), [("nobody/no-such-model", "hf download"), ("no//such", "neither a directory")]
)
def test_find_says_how_to_get_a_model(monkeypatch, tmp_path, name, says):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=says):
        hf.find(name)
