import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modjax
from modjax.errors import InputError
from modjax.models import export, gguf, gguf_config, gguf_file, hf
from modjax.models.families import FAMILIES
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
    got = jax.jit(lambda decoder, tokens_BT: decoder.logits(decoder(tokens_BT)))(decoder, TOKENS_BT)
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

    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}

    writer = GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":
            getattr(writer, f"add_{kinds[type(value)]}")(key, value)
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
    got = gguf_file.read("token_embd.weight", tensor)
    assert got.dtype == np.float32 and np.isfinite(got).all()
    np.testing.assert_array_equal(got, expected)


def test_formats_that_the_package_cannot_read_are_named(tmp_path, tiny_tensors):
    from gguf import GGMLQuantizationType

    tiny_tensors["blk.0.attn_q.weight"] = (np.zeros((32, 32), np.int8), GGMLQuantizationType.I8)
    with pytest.raises(InputError, match="'blk.0.attn_q.weight' has format 24, which the gguf package cannot read"):
        gguf.read(write(tmp_path / "tiny.gguf", TINY, tiny_tensors))


# What llama.cpp's convert_hf_to_gguf.py writes for each family: the architecture, the keys besides those that all have,
# and how it changes tensors.
ARCHITECTURE = {"phi": "phi2", "gpt_neox": "gptneox", "mistral": "llama", "ministral3": "mistral3", "olmo3": "olmo2"}
ARCHITECTURE |= {"gemma3_text": "gemma3", "cohere": "command-r"}
INTERLEAVED = ("llama", "mistral", "ministral3", "smollm3", "granite", "olmo")
WINDOW = {"attention.sliding_window": "sliding_window"}
SOFTCAPS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
KEYS = {
    "phi3": WINDOW,
    "gpt_neox": {"use_parallel_residual": "use_parallel_residual"},
    "gemma2": WINDOW | SOFTCAPS,
    "gemma3_text": WINDOW,
    "mistral": WINDOW,  # llama.cpp leaves it out, and so reads all earlier tokens
    "olmo3": WINDOW,
    "cohere": {"logit_scale": "logit_scale"},
    "cohere2": WINDOW | {"logit_scale": "logit_scale"},
    "olmo": {"attention.clamp_kqv": "clip_qkv"},
    "stablelm": {"use_parallel_residual": "use_parallel_residual"},
    "granite": {
        "embedding_scale": "embedding_multiplier",
        "attention.scale": "attention_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    },
}


def interleaved(array, heads):
    """The two halves of the rows of each head, side by side."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def changed(name, array, config):
    family = config.model_type
    if family in INTERLEAVED and ".q_proj." in name:
        return interleaved(array, config.num_attention_heads)
    if family in INTERLEAVED and ".k_proj." in name:
        return interleaved(array, config.num_key_value_heads)
    if family == "gpt_neox" and ".query_key_value." in name:
        grouped = array.reshape(config.num_attention_heads, 3, -1, *array.shape[1:])
        return np.concatenate([grouped[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
    if family == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return array.T
    if family.startswith("gemma") and name.endswith("norm.weight"):
        return array + 1
    return array


def first_of(config, *keys):
    return next((value for key in keys if (value := getattr(config, key, None)) is not None), None)


def converted(model):
    """A transformers model's metadata and tensors, named and laid out as llama.cpp has them."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    config, family = model.config, model.config.model_type
    name = ARCHITECTURE.get(family, family)
    (arch,) = (arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == name)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    tied = {"lm_head.weight", "embed_out.weight"} if config.tie_word_embeddings else set()
    tensors = {}
    for theirs, array in model.state_dict().items():
        if theirs not in tied and not theirs.endswith((".attn.bias", ".attn.masked_bias")):
            ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
            tensors[ours] = (np.ascontiguousarray(changed(theirs, array.numpy(), config)), None)
    width = config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    metadata = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": first_of(config, "intermediate_size", "n_inner") or 4 * config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": first_of(config, "num_key_value_heads"),
        "attention.key_length": first_of(config, "head_dim"),
        "attention.value_length": first_of(config, "head_dim"),
        "attention.layer_norm_rms_epsilon": first_of(config, "rms_norm_eps"),
        "attention.layer_norm_epsilon": first_of(config, "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
        "rope.freq_base": rope.get("full_attention", rope).get("rope_theta"),
        "rope.freq_base_swa": rope.get("sliding_attention", {}).get("rope_theta") if family == "gemma3_text" else None,
        "vocab_size": config.vocab_size if family == "llama" else None,
    }
    if "partial_rotary_factor" in rope:
        metadata["rope.dimension_count"] = int(rope["partial_rotary_factor"] * width)
    if family == "olmo3":
        metadata["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in config.layer_types]
    if family == "olmo":
        metadata["attention.layer_norm_epsilon"] = 1e-5
    metadata |= {key: getattr(config, theirs) for key, theirs in KEYS.get(family, {}).items()} | scaled(config, tensors)
    found = {f"{name}.{key}": value for key, value in metadata.items() if value is not None}
    return {"general.architecture": name} | found, tensors


def scaled(config, tensors):
    """The keys of the scaling of a rotary embedding; its divisors are added to the tensors."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    kind = rope.get("rope_type", "default")
    if config.model_type == "phi3":
        original = getattr(config, "original_max_position_embeddings", config.max_position_embeddings)
        found = {"rope.scaling.original_context_length": original}
        if kind == "longrope":
            for length in ("short", "long"):
                divisors = np.float32(rope[f"{length}_factor"])
                tensors[f"rope_factors_{length}.weight"] = (divisors, None)
            scale = config.max_position_embeddings / original
            found["rope.scaling.attn_factor"] = (
                float((1 + np.log(scale) / np.log(original)) ** 0.5) if scale > 1 else 1.0
            )
        return found
    if kind == "llama3":  # the divisor of each pair's frequency
        dim = config.hidden_size // config.num_attention_heads
        plain_J = rope["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
        tensors[gguf_config.FACTORS] = (np.float32(plain_J / llama3_frequencies(config)), None)
    if kind not in ("linear", "yarn"):
        return {}
    found = {"rope.scaling.type": kind, "rope.scaling.factor": rope["factor"]}
    found["rope.scaling.original_context_length"] = rope.get("original_max_position_embeddings")
    found |= {f"rope.scaling.yarn_{key}": rope.get(key) for key in ("beta_fast", "beta_slow")}
    if config.model_type == "ministral3":
        found["rope.scaling.yarn_log_multiplier"] = rope["mscale_all_dim"]
        found["attention.temperature_scale"] = rope["llama_4_scaling_beta"]
    return found | {"rope.scaling.yarn_attn_factor": rope.get("attention_factor")}


def llama3_frequencies(config):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()


YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {"rope_type": "longrope", "rope_theta": 500.0, "short_factor": [1.0, 1.1, 1.5, 2.0]}
LONGROPE |= {"long_factor": [1.08, 2.0, 4.0, 8.5]}
LONG = {"rope_parameters": LONGROPE, "max_position_embeddings": 128, "original_max_position_embeddings": 32}
GEMMA3 = {"full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 8.0}}
GEMMA3 |= {"sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
OLMO3 = {"full_attention": YARN | {"rope_theta": 5e5}}
OLMO3 |= {"sliding_attention": {"rope_type": "default", "rope_theta": 5e5}}
VARIANTS = {
    "llama": [
        {"rms_norm_eps": 1e-5},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"head_dim": 16, "num_key_value_heads": 1},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
        {"rope_parameters": YARN},
        {"rope_parameters": YARN | {"beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.3}},
    ],
    "qwen2": [{"rms_norm_eps": 1e-5}, {"tie_word_embeddings": True, "rope_parameters": YARN}],
    "qwen3": [{"head_dim": 8}, {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True}],
    "phi": [{"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 1.0, "num_key_value_heads": 4}],
    "phi3": [
        {"sliding_window": 3},
        {"sliding_window": None, "tie_word_embeddings": True, "partial_rotary_factor": 0.5},
        LONG,
        LONG | {"max_position_embeddings": 32},
    ],
    "gpt_neox": [{"use_parallel_residual": True}, {"use_parallel_residual": False, "rotary_pct": 0.5}],
    "gpt2": [{}, {"tie_word_embeddings": False, "n_inner": 40}],
    "olmo2": [{"rms_norm_eps": 1e-5}, {"num_key_value_heads": 1, "tie_word_embeddings": True}],
    "gemma2": [
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 3},
        {"head_dim": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    ],
}


VARIANTS |= {
    "mistral": [{"sliding_window": 5}],
    "ministral3": [{"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5}}],
    "smollm3": [{"num_hidden_layers": 5, "no_rope_layers": None}],
    "granite": [{}, {"logits_scaling": 3.0, "attention_bias": True}],
    "olmo": [{}, {"clip_qkv": None, "num_key_value_heads": 1}],
    "olmo3": [{}, {"rope_parameters": OLMO3}],
    "gemma": [{}],
    "gemma3_text": [
        {"num_hidden_layers": 7, "sliding_window_pattern": 6, "query_pre_attn_scalar": 8},
        {"num_hidden_layers": 7, "sliding_window_pattern": 6, "query_pre_attn_scalar": 8, "rope_parameters": GEMMA3},
    ],
    "stablelm": [{}, {"use_parallel_residual": True, "use_qkv_bias": True, "partial_rotary_factor": 0.5}],
    "starcoder2": [{}, {"use_bias": False, "tie_word_embeddings": False}],
    "cohere": [{}, {"use_qk_norm": False}],
    "cohere2": [{"num_hidden_layers": 5, "sliding_window_pattern": 4}],
}


@pytest.mark.parametrize(("family", "overrides"), [(family, own) for family, all in VARIANTS.items() for own in all])
def test_each_family_is_read_as_its_directory(torch_model, tmp_path, family, overrides):
    """The same config and, up to rounding, the same weights, so that logits are the same too."""
    model = torch_model(family, **overrides)
    model.save_pretrained(tmp_path)
    file = write(tmp_path / "tiny.gguf", *converted(model))
    assert gguf.config(file) == hf.config(tmp_path)
    expected, got = leaves(hf.read(tmp_path)), leaves(gguf.read(file))
    assert list(got) == list(expected)
    for path, leaf in expected.items():
        np.testing.assert_allclose(got[path], leaf, atol=3e-7, rtol=0, err_msg=path)


@pytest.mark.parametrize(("family", "overrides"), [(family, all[-1]) for family, all in VARIANTS.items()])
def test_a_directory_made_of_a_file_is_the_model_again(torch_model, tmp_path, family, overrides):
    """For transformers too: config.json is that of the checkpoint, as far as the file tells."""
    import torch
    import transformers

    model = torch_model(family, **overrides)
    file = write(tmp_path / "tiny.gguf", *converted(model))
    export.write(gguf.read(file), tmp_path / "out", gguf.described(file))
    assert hf.config(tmp_path / "out") == gguf.config(file)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert [type(again).__name__] == json.loads((tmp_path / "out" / "config.json").read_text())["architectures"]
    tokens_BT = torch.tensor(np.random.default_rng(0).integers(0, 61, (2, 17)))
    with torch.no_grad():
        expected, got = model(tokens_BT).logits, again(tokens_BT).logits
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_no_family_is_forgotten():
    """GPT-Neo has no GGUF form."""
    rows = gguf_config.ARCHITECTURES.values()
    assert {row.family for row in rows} | {row.windowed for row in rows} - {""} == set(FAMILIES) - {"gpt_neo"}
    assert set(VARIANTS) == set(FAMILIES) - {"gpt_neo"}


def logits(decoder, tokens_BT):
    return jax.jit(lambda decoder, tokens_BT: decoder.logits(decoder(tokens_BT)))(decoder, tokens_BT)


# Configs that transformers reads from such a file: it takes some sizes from its defaults.
TRANSFORMERS_READS = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "gpt2": {"n_inner": 128, "n_positions": 1024},
}
TRANSFORMERS_READS |= {"gemma2": VARIANTS["gemma2"][0], "gemma3_text": VARIANTS["gemma3_text"][0]}
TRANSFORMERS_READS |= {"stablelm": {}, "starcoder2": {}}


@pytest.mark.parametrize("family", TRANSFORMERS_READS)
def test_transformers_reads_what_the_tests_write(torch_model, tmp_path, family):
    """An independent check that `converted` knows llama.cpp's conventions."""
    import torch
    import transformers

    model = torch_model(family, **TRANSFORMERS_READS[family])
    metadata, tensors = converted(model)
    tokens = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{i}" for i in range(61)]}
    write(tmp_path / "tiny.gguf", metadata | tokens, tensors)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(theirs.state_dict()[name], array, atol=3e-7, rtol=0, err_msg=name)


def test_rope_factors_of_llama_3(torch_model, tmp_path):
    """llama.cpp stores the divisor of each pair's frequency as a tensor."""
    import torch

    rope = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 32
    model = torch_model("llama", rms_norm_eps=1e-5, rope_parameters=rope)
    metadata, tensors = converted(model)
    assert len(set(tensors[gguf_config.FACTORS][0].round(3))) > 2  # kept, between and divided by the factor
    tokens_BT = np.random.default_rng(0).integers(0, 61, (2, 17))
    with torch.no_grad():
        expected = model(torch.tensor(tokens_BT)).logits.numpy()
    decoder = gguf.read(write(tmp_path / "tiny.gguf", metadata, tensors))
    np.testing.assert_allclose(logits(decoder, tokens_BT), expected, atol=1e-4, rtol=0)
    tensors[gguf_config.FACTORS] = (tensors[gguf_config.FACTORS][0][:3], None)
    with pytest.raises(InputError, match=r"'rope_freqs.weight' has shape \(3,\), expected \(4,\)"):
        gguf.read(write(tmp_path / "tiny.gguf", metadata, tensors))


def test_fused_queries_keys_and_values(torch_model, tmp_path):
    """Early files of Phi-2 have one tensor of the three."""
    model = torch_model("phi", num_key_value_heads=2)
    metadata, tensors = converted(model)
    expected = leaves(gguf.read(write(tmp_path / "apart.gguf", metadata, tensors)))
    for i in range(model.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blk.{i}.attn_{letter}.{kind}")[0] for letter in "qkv"]
            tensors[f"blk.{i}.attn_qkv.{kind}"] = (np.concatenate(parts), None)
    got = leaves(gguf.read(write(tmp_path / "fused.gguf", metadata, tensors)))
    for path, leaf in expected.items():
        np.testing.assert_array_equal(got[path], leaf)
    tensors["blk.0.attn_qkv.bias"] = (np.zeros(99, np.float32), None)
    with pytest.raises(InputError, match="'blk.0.attn_k.bias' is missing .*, and 2 more"):
        gguf.read(write(tmp_path / "wrong.gguf", metadata, tensors))


def test_the_scale_of_the_largest_gemma2(tmp_path, tiny_tensors):
    gemma = {key.replace("llama", "gemma2"): value for key, value in TINY.items() if key.startswith("llama.")}
    gemma |= {"general.architecture": "gemma2", "gemma2.attention.key_length": 16}
    for layers, scale in ((2, 16**-0.5), (46, 8**-0.5)):
        file = write(tmp_path / "x.gguf", gemma | {"gemma2.block_count": layers}, tiny_tensors)
        assert gguf.config(file).attn_scale == scale


def test_a_magnitude_of_longrope_that_is_not_that_of_the_formula(torch_model, tmp_path):
    metadata, tensors = converted(torch_model("phi3", **LONG))
    file = write(tmp_path / "x.gguf", metadata | {"phi3.rope.scaling.attn_factor": 1.5}, tensors)
    assert gguf.config(file).rope_scaling.magnitude == 1.5
    del tensors["rope_factors_long.weight"]
    with pytest.raises(InputError, match="x.gguf: 'rope_factors_long.weight' is missing"):
        gguf.config(write(tmp_path / "x.gguf", metadata, tensors))


def test_unknown_keys_are_named(tmp_path, tiny_tensors):
    file = write(tmp_path / "x.gguf", TINY | {"llama.residual_scale": 0.5, "llama.embedding_scale": 0.0}, tiny_tensors)
    with pytest.warns(UserWarning, match="metadata of llama: residual_scale: not known to modjax"):
        gguf.config(file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"general.architecture": "mamba"},
            "general.architecture is 'mamba'; supported are llama, mistral3, smollm3, granite, phi2, .*, cohere2$",
        ),
        ({"llama.expert_count": 8}, "metadata of llama: expert_count = 8 is not supported; expected 0"),
        ({"llama.rope.scaling.type": "linear"}, "rope_parameters: factor is None; expected a positive number"),
        ({"llama.block_count": None}, "metadata of llama: block_count is None; expected a positive whole number"),
        ({"llama.attention.head_count": [4, 4]}, r"head_count is \[4, 4\]; expected a positive whole number"),
        ({"llama.embedding_length": 30}, "embedding_length is 30; expected a multiple of attention.head_count = 4"),
        (
            {"llama.attention.layer_norm_rms_epsilon": None},
            "layer_norm_rms_epsilon is None; expected a positive number",
        ),
        ({"llama.attention.value_length": 16}, "attention.value_length = 16 is not supported; expected 8"),
        ({"llama.attention.causal": False}, "attention.causal = False is not supported; expected True"),
        ({"llama.rope.scaling.type": "ntk"}, "rope.scaling.type is 'ntk'; expected 'none', 'linear', 'yarn', or"),
        (
            {"llama.rope.scaling.type": "longrope"},
            "rope.scaling.type is 'longrope'; expected .* 'rope_factors_short.weight'",
        ),
        ({"llama.rope.scaling.attn_factor": 2.0}, "rope.scaling.attn_factor = 2.0 is not supported; expected 1.0"),
        ({"llama.rope.dimension_count": 4}, "partial_rotary_factor = .* is not supported"),
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


def test_a_model_without_a_tokenizer_takes_token_ids(tmp_path, tiny_tensors):
    file = write(tmp_path / "tiny.gguf", TINY | {"tokenizer.ggml.model": "bert"}, tiny_tensors)
    with pytest.warns(UserWarning, match="The model is loaded without one"):
        model = modjax.load(file)
    assert model.tokenizer is None and model.logits([[1, 2, 3]]).shape == (1, 3, 61)
    with pytest.raises(InputError, match="tokenizer"):
        model.generate(["text"])


def test_a_model_in_several_files(tmp_path, tiny_tensors):
    expected = leaves(gguf.read(write(tmp_path / "whole.gguf", TINY, tiny_tensors)))
    names, parts = list(tiny_tensors), {}
    for part in range(3):
        own = {name: tiny_tensors[name] for name in names[part::3]}
        metadata = TINY if part == 0 else {"general.architecture": "llama"}
        metadata = metadata | {"split.no": part, "split.count": 3}
        parts[part] = write(tmp_path / f"tiny-{part + 1:05}-of-00003.gguf", metadata, own)
    for path, leaf in leaves(gguf.read(parts[0])).items():
        np.testing.assert_array_equal(leaf, expected[path])
    with pytest.raises(InputError, match="00002-of-00003.gguf: is one of 3 parts of a model; expected the first"):
        gguf.read(parts[1])
    parts[2].unlink()
    with pytest.raises(InputError, match="tiny-00003-of-00003.gguf: cannot be read"):
        gguf.read(parts[0])
