import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.models import gguf, gguf_file
from modjax.models.hf_names import MODULES
from modjax.models.weights import fingerprint, leaves

TOKENS_BT = np.array([[504, 3575, 282, 4649, 314, 7042, 30, 1], [1, 4093, 198, 19556, 28, 638, 359, 346]])
TINY = {
    "general.architecture": "llama",
    "llama.vocab_size": 61,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.block_count": 2,
    "llama.context_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.mark.slow
def test_embedded_model_equals_transformers(tmp_path):
    """Q4_1 weights, dequantised to float32 on both sides; the bound is 1e-5 of the largest logit, which is about 40.

    Absolute 1e-4 would be one part in 400,000, less than the rounding error of 30 layers in float32: float32 logits of
    torch differ from its float64 ones by up to 7e-5, and XLA on a CPU sums 1536 products in one run, torch in blocks.
    """
    import torch
    import transformers

    (tmp_path / gguf.EMBEDDED).symlink_to(gguf.embedded())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS_BT)).logits.numpy()
    decoder = gguf.read(gguf.embedded())
    got = jax.jit(lambda decoder, tokens_BT: decoder.logits(decoder(tokens_BT)[0]))(decoder, TOKENS_BT)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_embedded_config():
    config = gguf.config(gguf.embedded())
    assert (config.V, config.D, config.N, config.K, config.H, config.F, config.L) == (49152, 576, 9, 3, 64, 1536, 30)
    assert config.tied and config.context == 8192 and config.rope_theta == 100_000 and config.norm_eps == 1e-5


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_embedded_fingerprint_is_what_saved_libraries_remember(quantize):
    assert fingerprint(gguf.read(gguf.embedded(), jnp.bfloat16, quantize=quantize)) == "2882806fd0ef28ce"


def write(path, metadata, tensors):
    """Writes a GGUF file with the gguf package."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":
            {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}[
                type(value)
            ](key, value)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tiny_tensors():
    """{name: (array, type or None for float32)}: a two-layer llama with Q8_0 and F16 among its formats."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    rng = np.random.default_rng(0)

    def matrix(*shape):
        return rng.normal(size=shape).astype(np.float32), None

    def packed(*shape):
        return quantize(matrix(*shape)[0], GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0

    tensors = {"token_embd.weight": packed(61, 32), "output.weight": matrix(61, 32), "output_norm.weight": matrix(32)}
    for i in range(2):
        shapes = {"attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32)}
        shapes |= {"attn_output": (32, 32), "ffn_gate": (64, 32), "ffn_up": (64, 32)}
        tensors |= {f"blk.{i}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        tensors[f"blk.{i}.ffn_down.weight"] = (matrix(32, 64)[0].astype(np.float16), None)
    return tensors


def test_formats_and_layout(tmp_path, tiny_tensors):
    decoder = gguf.read(write(tmp_path / "tiny.gguf", TINY, tiny_tensors), jnp.bfloat16)
    found = leaves(decoder)
    assert not decoder.config.tied and decoder.config.rope_dim == 8
    assert {leaf.dtype for leaf in found.values()} == {jnp.dtype("bfloat16")}
    down = np.stack([tiny_tensors[f"blk.{i}.ffn_down.weight"][0].T for i in range(2)])
    np.testing.assert_array_equal(found["blocks.mlp.down.kernel"], down.astype(jnp.bfloat16))
    query = tiny_tensors["blk.1.attn_q.weight"][0]
    first_head = np.concatenate([query[0:8:2], query[1:8:2]])  # the file has the pairs (j, j + H / 2) side by side
    np.testing.assert_array_equal(found["blocks.attn.q.kernel"][1, :, :8], first_head.T.astype(jnp.bfloat16))


def blocks_of(kind, rows, width):
    """Random bytes of a format; the float16 scales in its blocks, if any, are small and finite."""
    from gguf import GGML_QUANT_SIZES

    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 256, (rows, width // per_block, block_bytes)).astype(np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    for number, at in enumerate(scales[kind.name]):
        raw[..., at : at + 2] = np.array([0.01 * (number + 1)], np.float16).view(np.uint8)
    return raw.reshape(rows, -1)


FORMATS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read_as_the_package_reads_it(tmp_path, monkeypatch, name):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    monkeypatch.setattr("modjax.models.gguf_file.CHUNK", 1000)  # several reads for a tensor
    kind = GGMLQuantizationType[name]
    weights = np.random.default_rng(1).normal(size=(61, 256)).astype(np.float32)
    raw = blocks_of(kind, 61, 256) if name.endswith("_K") else quantize(weights, kind)
    expected = dequantize(raw, kind)
    if not name.endswith("_K"):
        assert np.abs(expected - weights).max() < 0.5  # the blocks do hold the weights
    file = write(tmp_path / "one.gguf", {"general.architecture": "llama"}, {"token_embd.weight": (raw, kind)})
    tensor = gguf.header(file).tensors["token_embd.weight"]
    assert tensor.shape == (61, 256) and tensor.kind == kind
    got = gguf_file.read(file, "token_embd.weight", tensor)
    assert got.dtype == np.float32 and np.isfinite(got).all()
    np.testing.assert_array_equal(got, expected)


def test_formats_that_the_package_cannot_read_are_named(tmp_path, tiny_tensors):
    from gguf import GGMLQuantizationType

    tiny_tensors["blk.0.attn_q.weight"] = (np.zeros((32, 32), np.int8), GGMLQuantizationType.I8)
    with pytest.raises(InputError, match="'blk.0.attn_q.weight' has format 24, which the gguf package cannot read"):
        gguf.read(write(tmp_path / "tiny.gguf", TINY, tiny_tensors))


def converted(model):
    """A transformers model's metadata and tensors, named and laid out as llama.cpp has them."""
    family, config = model.config.model_type, model.config
    names = {gguf.MODULES[part]: module for part, module in MODULES[family].items() if part in gguf.MODULES}
    names = {
        ours.format(i=i): theirs.format(i=i)
        for ours, theirs in names.items()
        for i in range(config.num_hidden_layers if "{i}" in ours else 1)
    }
    weights, tensors = {name: array.numpy() for name, array in model.state_dict().items()}, {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in weights:
                array = weights[f"{theirs}.{kind}"]
                heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(ours[6:])
                if family == "llama" and heads:  # rows of the two halves of a head, side by side
                    array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
                tensors[f"{ours}.{kind}"] = (np.ascontiguousarray(array), None)
    metadata = {f"{family}.{key.removeprefix('llama.')}": value for key, value in TINY.items() if "general" not in key}
    sizes = {"block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size}
    sizes["rope.freq_base"] = float(config.rope_parameters["rope_theta"])
    metadata |= {f"{family}.{key}": value for key, value in sizes.items()} | {"general.architecture": family}
    return metadata, tensors


def logits_equal_transformers(model, file):
    import torch

    tokens_BT = np.random.default_rng(0).integers(0, 61, (2, 17))
    with torch.no_grad():
        expected = model(torch.tensor(tokens_BT)).logits.numpy()
    decoder = gguf.read(file)
    got = jax.jit(lambda decoder, tokens_BT: decoder.logits(decoder(tokens_BT)[0]))(decoder, tokens_BT)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_families_equal_transformers(torch_model, tmp_path, family):
    model = torch_model(family, rms_norm_eps=1e-5)
    logits_equal_transformers(model, write(tmp_path / "tiny.gguf", *converted(model)))


def test_linear_rope_scaling(torch_model, tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    model = torch_model("llama", rms_norm_eps=1e-5, rope_parameters=rope)
    metadata, tensors = converted(model)
    metadata |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    logits_equal_transformers(model, write(tmp_path / "tiny.gguf", metadata, tensors))


def test_rope_factors_of_llama_3(torch_model, tmp_path):
    """llama.cpp stores the divisor of each pair's frequency as a tensor."""
    rope = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 32
    model = torch_model("llama", rms_norm_eps=1e-5, rope_parameters=rope)
    metadata, tensors = converted(model)
    plain_J = 500.0 ** (-np.arange(0, 8, 2) / 8)
    factors_J = (plain_J / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    assert len(set(factors_J.round(3))) > 2  # kept, between and divided by the factor
    tensors[gguf.ROPE_FACTORS] = (factors_J, None)
    logits_equal_transformers(model, write(tmp_path / "tiny.gguf", metadata, tensors))
    tensors[gguf.ROPE_FACTORS] = (factors_J[:3], None)
    with pytest.raises(InputError, match=r"'rope_freqs.weight' has shape \(3,\), expected \(4,\)"):
        gguf.read(write(tmp_path / "tiny.gguf", metadata, tensors))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"general.architecture": "mamba"}, "general.architecture is 'mamba'; supported are 'llama', 'qwen2', 'qwen3'"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8; expected 0: mixture-of-experts models are not"),
        ({"llama.rope.scaling.type": "linear"}, "the metadata has no 'llama.rope.scaling.factor'"),
        ({"llama.block_count": None}, "the metadata has no 'llama.block_count'"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn'"),
        ({"llama.block_count": 3}, r"'blk.2.attn_k.weight' is missing \(for blocks.attn.k.kernel\), and 8 more"),
        ({"llama.block_count": 1}, "'blk.1.attn_norm.weight' is not a tensor of this llama decoder, and 8 more"),
        ({"llama.feed_forward_length": 96}, r"has shape \(32, 64\), the config expects \(32, 96\)"),
    ],
)
def test_errors_name_file_and_key(tmp_path, tiny_tensors, change, says):
    metadata = {key: value for key, value in (TINY | change).items() if value is not None}
    with pytest.raises(InputError, match=says) as caught:
        gguf.read(write(tmp_path / "tiny.gguf", metadata, tiny_tensors))
    assert "tiny.gguf: " in str(caught.value)


def test_truncated_anywhere(tmp_path, tiny_tensors):
    whole = write(tmp_path / "whole.gguf", TINY, tiny_tensors).read_bytes()
    for length in (0, 3, 12, 50, 500, 2000, len(whole) - 200):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut.gguf"):
            gguf.read(tmp_path / "cut.gguf")


@pytest.mark.parametrize("content", [b"GGML" + bytes(60), b"GGUF" + struct.pack("<I", 9) + bytes(60)])
def test_foreign_files(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match="expected b'GGUF', version 2 or 3"):
        gguf.header(tmp_path / "x.gguf")


def test_not_there(tmp_path):
    with pytest.raises(InputError, match="no.gguf: cannot be read"):
        gguf.header(tmp_path / "no.gguf")
