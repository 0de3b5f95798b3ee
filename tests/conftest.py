"""Eight CPU devices, quick compilation, no silent rank promotion, set before jax starts; tiny models and libraries."""

import os
import pathlib

# The models are tiny: most of the time goes into compiling. XLA's older code generator compiles several times faster
# than its fusion emitters, and one part per program faster than 32. A cache on disk costs more than it saves.
FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "MODJAX_TOKEN_CACHE": "false",
    "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]),
    "OMP_NUM_THREADS": "1",  # for torch, NumPy and scikit-learn: on small arrays, more threads wait for each other
}

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Linux gives a process 65,530 memory maps and a compiled program takes about ten: the programs of all tests would
    be too many."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """JAX with its cache of compiled programs turned on, but without a folder; `tmp_path` is the user's cache."""
    from jax.experimental.compilation_cache import compilation_cache

    names = ("compilation_cache_dir", "enable_compilation_cache", "persistent_cache_min_compile_time_secs")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def agrees(record_property):
    """A function that holds a method's result to its float64 reference within 1e-5; its errors are shown at the end."""

    def check(method, got, expected):
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        assert got.shape == expected.shape
        error = float(np.abs(got - expected).max())
        record_property("reference", (method, error))
        assert error <= 1e-5, f"{method}: {error:.2e} from its reference; expected at most 1e-5"

    return check


def pytest_terminal_summary(terminalreporter):
    """Each method's largest error against its reference."""
    worst = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "reference":
                worst[value[0]] = max(worst.get(value[0], 0.0), value[1])
    if worst:
        terminalreporter.section("largest absolute error against the NumPy reference")
    for method, error in sorted(worst.items()):
        terminalreporter.write_line(f"{method:40} {error:.1e}")


SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
# What the sizes are called in families that have names of their own, and what else a tiny model of a family takes.
SIZE_NAMES = {
    "gpt2": {
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "num_key_value_heads": None,
        "max_position_embeddings": "n_positions",
    },
    "gpt_neo": {"num_key_value_heads": None, "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
    "gpt_neox": {"num_key_value_heads": None},
}
TINY = {
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 16},
    "gemma3_text": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    "olmo3": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "ministral3": {
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "llama_4_scaling_beta": 0.5,
        },
    },
    "granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.4},
    "olmo": {"clip_qkv": 1.0},
    "cohere": {"logit_scale": 0.5, "use_qk_norm": True},
    "cohere2": {"logit_scale": 0.5, "sliding_window": 5, "sliding_window_pattern": 2},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
}
# The text decoder of multimodal models, and what else a tiny one takes.
TEXTS = {"gemma3": "gemma3_text", "mistral3": "ministral3"}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.fixture(scope="session")
def tiny_json():
    """A function that gives what config.json of a tiny model of a family says, multimodal: of its text."""

    def make(family, **overrides):
        if family in TEXTS:
            text = make(overrides.pop("model_type", TEXTS[family]), **overrides)
            kinds = {"gemma3": "siglip_vision_model", "mistral3": "pixtral"}
            found = {"model_type": family, "text_config": text, "vision_config": VISION | {"model_type": kinds[family]}}
            beside = {"tie_word_embeddings": True, "initializer_range": 0.2}
            return found | beside | {key: text[key] for key in beside if key in text}
        names = SIZE_NAMES.get(family, {})
        sizes = {names.get(key, key): value for key, value in SIZES.items() if names.get(key, key) is not None}
        return {"model_type": family} | sizes | TINY.get(family, {}) | overrides

    return make


@pytest.fixture(scope="session")
def torch_model(tiny_json):
    """A function that gives a random float32 model of transformers; its norms and biases are random too."""
    import torch
    import transformers

    def make(family, seed=0, **overrides):
        config = transformers.AutoConfig.for_model(**tiny_json(family, **overrides))
        torch.manual_seed(seed)
        kind = transformers.AutoModelForImageTextToText if family in TEXTS else transformers.AutoModelForCausalLM
        model = kind.from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 or name.endswith("norm.weight"):
                    parameter.add_(0.3 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session")
def random_library():
    """A function that gives random experts for {site: (I, O)}, A and B both far from zero."""
    from modjax.experts.library import Library

    def make(sites, experts=3, rank=2, layers=2, seed=0, **fields):
        rng = np.random.default_rng(seed)

        def factor(width):
            return np.float32(rng.normal(size=(layers, experts, rank, width)) / width**0.5)

        return Library.from_arrays({site: (factor(i), factor(o)) for site, (i, o) in sites.items()}, **fields)

    return make


@pytest.fixture(scope="session")
def byte_tokenizer():
    """A function that gives a tokenizer of one token a byte, ids 0 to 255, and of the special tokens given to it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(special=(), template=None, **named):
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(one, special=True) for one in special])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, chat_template=template, clean_up_tokenization_spaces=False, **named
        )

    return make


@pytest.fixture(scope="session")
def word_tokenizer():
    """A transformers tokenizer of sixty words, w0 to w59, split at spaces; ids 0 to 3 are special."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<end>", "<unk>", "<user>", *(f"w{i}" for i in range(60))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


@pytest.fixture(scope="session")
def word_model(word_tokenizer):
    """A tiny random llama that reads the word tokenizer's ids."""
    from modjax.model import Model
    from modjax.models.config import ModelConfig
    from modjax.models.decoder import Decoder

    config = ModelConfig("llama", V=64, D=32, N=4, K=2, H=8, F=64, L=2, context=64, rope_dim=8)
    params = jax.tree.map(lambda leaf: leaf * 5 if leaf.ndim > 1 else leaf, Decoder.init(config, jax.random.key(0)))
    return Model("tiny", params, word_tokenizer)


@pytest.fixture(scope="session")
def word_tasks():
    """Four tasks of short word sequences; each has 24 examples to train on and 6 for validation."""
    from modjax.data.tasks import Example, Task, Tasks

    def example(rng, split):
        words = [f"w{i}" for i in rng.integers(0, 60, rng.integers(3, 9))]
        return Example(" ".join(words[:-2]), " ".join(words[-2:]), split)

    def task(seed, name):
        rng = np.random.default_rng(seed)
        return Task(name, tuple(example(rng, "validation" if i >= 24 else "train") for i in range(30)))

    return Tasks(task(seed, name) for seed, name in enumerate(("reverse", "copy", "sort", "count")))
