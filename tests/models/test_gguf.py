import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.models import gguf
from modjax.models.weights import leaves

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


def test_embedded_model_equals_transformers(tmp_path):
    """Q4_1 weights dequantised here and there, in float32; the bound is 1e-5 of the largest logit, which is some 40.

    Absolute 1e-4 would be one part in 400,000, below what 30 layers of float32 products keep: torch's own float32
    logits differ from its float64 ones by up to 7e-5, and XLA on a CPU sums 1536 products in one run, torch in blocks.
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


def write(path, metadata, tensors):
    """A GGUF file by the gguf package's own writer."""
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"general.architecture": "mamba"}, "general.architecture is 'mamba'"),
        ({"llama.block_count": None}, "the metadata has no 'llama.block_count'"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn'"),
        ({"llama.block_count": 3}, r"'blk.2.attn_k.weight' is missing \(for blocks.attn.k.kernel\), and 8 more"),
        ({"llama.block_count": 1}, "'blk.1.attn_norm.weight' has no place in a llama decoder, and 8 more"),
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
