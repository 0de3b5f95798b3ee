"""Damaged files, for every reader: the right value or an InputError, within a time and a memory limit.

`pytest tests/fuzz` tries a few hundred fixed examples; `--hypothesis-profile=long` tries new ones for hours.
"""

import contextlib
import copy
import gzip
import json
import pathlib
import shutil
import signal
import struct
import tracemalloc
import warnings

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modjax
from modjax import routing
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.experts.weights_file import WEIGHTS
from modjax.models import gguf, gguf_config, gguf_tokenizer, hf

SECONDS, MEGABYTES = 30, 100  # for files of a few kilobytes; the first reading also compiles
NUMBERS = [0, 1, 2, 3, 0x7F, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
VALUES = [None, True, -1, 0, 1, 2, 0.5, 10**9, 10**18, 10**30, 1e308, float("nan"), float("inf"), "", "x", "16",
          "../../x", "\x00", "\ud800", [], [[]], [None], {}, {"x": {}}, "[" * 50]  # fmt: skip


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """The content truncated, with bits flipped, numbers overwritten, or pieces removed, repeated or inserted."""
    at = st.integers(0, len(content) - 1) | st.integers(0, min(200, len(content) - 1))
    kind = draw(st.sampled_from(["cut", "flip", "number", "drop", "double", "insert"]))
    start = draw(at)
    end = min(len(content), start + draw(st.integers(1, 64)))
    if kind == "cut":
        return content[:start]
    if kind == "flip":
        broken = bytearray(content)
        for place, bit in draw(st.lists(st.tuples(at, st.integers(0, 7)), min_size=1, max_size=4)):
            broken[place] ^= 1 << bit
        return bytes(broken)
    if kind == "number":
        width = draw(st.sampled_from("BHIQ"))
        number = draw(st.sampled_from(NUMBERS)) % 256 ** struct.calcsize("<" + width)
        packed = struct.pack("<" + width, number)
        return content[:start] + packed + content[start + len(packed) :]
    if kind == "drop":
        return content[:start] + content[end:]
    if kind == "double":
        return content[:end] + content[start:]
    return content[:start] + draw(st.binary(min_size=1, max_size=32)) + content[start:]


@st.composite
def absurd(draw, value):
    """A JSON value with one of its parts replaced, removed, or moved to a wrong place."""
    value = copy.deepcopy(value)
    places = [(inner, key) for inner, key in _places(value)]
    inner, key = draw(st.sampled_from(places))
    if isinstance(inner, dict) and draw(st.booleans()) and draw(st.booleans()):
        del inner[key]
    else:
        inner[key] = draw(st.sampled_from(VALUES) | st.integers() | st.text(max_size=5))
    return json.dumps(value)


def _places(value):
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


class Refused(Exception):
    """The reader raised InputError; any other exception is a bug."""


@contextlib.contextmanager
def reading():
    """Context in which a reader must end in time, use little memory, and raise only InputError, here Refused."""

    def too_long(*_):
        raise TimeoutError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError as error:
        assert str(error) and "\n" not in str(error).strip()
        raise Refused from error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        assert peak < MEGABYTES * 2**20, f"{peak >> 20} MiB for a file of kilobytes"


def attempt(read):
    """The result of read(); None if it raised InputError."""
    try:
        with reading():
            return read()
    except Refused:
        return None


def finite(tree):
    return all(np.isfinite(np.float32(leaf)).all() for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def checkpoint(torch_model, tmp_path_factory):
    """A tiny llama, written by transformers."""
    path = tmp_path_factory.mktemp("checkpoint")
    torch_model("llama").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory):
    """The bytes of a tiny llama in GGUF, with one quantised tensor."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    path, rng = tmp_path_factory.mktemp("gguf") / "tiny.gguf", np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    sizes = {
        "vocab_size": 61,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "block_count": 1,
        "context_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
    }
    for key, value in sizes.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    shapes = {"token_embd": (61, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    shapes |= {"blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32)}
    shapes |= {"blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32)}
    shapes["blk.0.ffn_down"] = (32, 64)
    for name, shape in shapes.items():
        array = np.float32(rng.normal(size=shape))
        kind = GGMLQuantizationType.Q8_0 if name == "blk.0.ffn_up" else None
        writer.add_tensor(f"{name}.weight", quantize(array, kind) if kind else array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def saved(random_library, tmp_path_factory):
    """A library of two experts on disk."""
    path = tmp_path_factory.mktemp("saved") / "library"
    library = random_library(experts=2, layers=2, sites={"attn.q": (8, 8), "attn.v": (8, 4)}, rank=2)
    library.save(path)
    return path


@pytest.fixture
def copied(tmp_path):
    """copied(folder) -> a copy to damage, always at the same path."""

    def copy_of(folder):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        return pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))

    return copy_of


@given(data=st.data())
def test_safetensors_of_a_checkpoint(checkpoint, copied, data):
    folder = copied(checkpoint)
    file = folder / hf.SINGLE
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    decoder = attempt(lambda: hf.read(folder))
    assert decoder is None or finite(decoder)


@given(data=st.data())
def test_config_of_a_checkpoint(checkpoint, copied, data):
    folder = copied(checkpoint)
    file = folder / "config.json"
    original = json.loads(file.read_text())
    file.write_text(data.draw(absurd(original)))
    decoder = attempt(lambda: hf.read(folder))
    assert decoder is None or finite(decoder)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 50_000, "1" * 100_000, '"\\ud800"', "\ufeff{}", "NaN"])
@pytest.mark.parametrize("name", ["config.json", hf.INDEX])
def test_json_that_is_no_config(checkpoint, copied, name, content):
    folder = copied(checkpoint)
    (folder / name).write_text(content)
    assert attempt(lambda: hf.read(folder)) is None


@pytest.mark.parametrize("dtype", ["I32", "U8", "BOOL", "F64", "F8_E4M3"])
def test_tensors_of_another_dtype(checkpoint, copied, dtype):
    """The header claims another dtype for the same bytes, or the same dtype for other bytes."""
    folder = copied(checkpoint)
    file = folder / hf.SINGLE
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"%s"' % dtype.encode()))
    assert attempt(lambda: hf.read(folder)) is None


@given(data=st.data())
def test_gguf(llama_cpp, tmp_path, data):
    file = tmp_path / "broken.gguf"
    file.write_bytes(data.draw(damaged(llama_cpp)))
    decoder = attempt(lambda: gguf.read(file))
    assert decoder is None or finite(decoder)


@given(data=st.data())
def test_metadata_of_gguf(llama_cpp, tmp_path, data):
    """A value of another type or size; the tensors are as they were."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama_cpp)
    head = gguf.header(file)
    key = data.draw(st.sampled_from([*head.metadata, *(f"llama.{key}" for key in gguf_config.ROPE)]))
    values = [value for value in VALUES if value is not None and not isinstance(value, dict)]
    head.metadata[key] = data.draw(st.sampled_from(values) | st.integers() | st.lists(st.integers(), max_size=3))
    attempt(lambda: gguf_config.read(head, file))


@given(data=st.data())
def test_tokenizer_of_gguf(data):
    kind = data.draw(st.sampled_from(["gpt2", "llama"]))
    metadata = {"model": kind, "tokens": ["<s>", "a", "b", "ab"], "token_type": [3, 1, 1, 1], "bos_token_id": 0}
    metadata |= {"merges": ["a b"], "scores": [0.0, -1.0, -2.0, -3.0], "pre": "gpt-2", "add_bos_token": True}
    key = data.draw(st.sampled_from([*metadata, "eos_token_id", "unknown_token_id", "add_eos_token"]))
    lists = st.lists(st.integers() | st.text(max_size=3) | st.floats(), max_size=6)
    values = [value for value in VALUES if value is not None and not isinstance(value, dict)]
    metadata[key] = data.draw(st.sampled_from(values) | lists)
    words = attempt(lambda: gguf_tokenizer.built({f"tokenizer.ggml.{key}": one for key, one in metadata.items()}, "x"))
    assert words is None or words("ab a")["input_ids"]


@given(data=st.data())
def test_weights_of_a_library(saved, copied, data):
    """The hash detects any change to the tensors of an expert."""
    folder = copied(saved)
    file = data.draw(st.sampled_from(sorted(folder.glob("*/*.safetensors"))))
    before = file.read_bytes()
    file.write_bytes(data.draw(damaged(before).filter(lambda broken: broken != before)))
    assert attempt(lambda: Library.load(folder)) is None


@given(data=st.data())
def test_adapters_of_others(saved, copied, data):
    folder = copied(saved)
    file = data.draw(st.sampled_from(sorted(folder.glob("*/adapter_*"))))
    if file.suffix == ".json" and data.draw(st.booleans()):
        file.write_text(data.draw(absurd(json.loads(file.read_text()))))
    else:
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    library = attempt(lambda: Library.from_peft([file.parent]))
    assert library is None or (finite(library.loras) and finite(library.scale))


@pytest.mark.parametrize("old", [False, True])
@given(data=st.data())
def test_adapters_in_a_file_of_torch(saved, copied, old, data):
    import torch
    from safetensors.torch import load_file

    folder = copied(saved) / "expert0"
    file = folder / "adapter_model.bin"
    torch.save(load_file(folder / WEIGHTS), file, _use_new_zipfile_serialization=not old)
    (folder / WEIGHTS).unlink()
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    library = attempt(lambda: Library.from_peft([folder]))
    assert library is None or (finite(library.loras) and finite(library.scale))


@given(data=st.data())
def test_index_of_a_library(saved, copied, data):
    folder = copied(saved)
    file = folder / "library.json"
    file.write_text(data.draw(absurd(json.loads(file.read_text()))))
    library = attempt(lambda: Library.load(folder))
    assert library is None or (finite(library.loras) and finite(library.scale))


@given(data=st.data())
def test_routers(saved, tmp_path, data):
    file = tmp_path / "router.safetensors"
    routing.arrow(Library.load(saved)).save(file)
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    router = attempt(lambda: routing.load_router(file))
    assert router is None or isinstance(router, routing.Router)


@given(data=st.data())
def test_task_lines(tmp_path, data):
    line = {"task": "a", "source": "x", "target": "y", "split": "train", "family": None, "held_out": False}
    file = tmp_path / "tasks.jsonl"
    if data.draw(st.booleans()):
        file.write_text(f"{json.dumps(line)}\n{data.draw(absurd(line))}")
    else:
        file.write_bytes(data.draw(damaged(f"{json.dumps(line)}\n".encode() * 2)))
    tasks = attempt(lambda: modjax.data.load(file))
    assert tasks is None or all(isinstance(one.source, str) for task in tasks.values() for one in task)


@given(data=st.data())
def test_task_folders(tmp_path, data):
    line = json.dumps({"id": "a-0", "split": "train", "input": "x", "outputs": ["y"]}) + "\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line.encode(), mtime=0))
    index = [{"task": "a", "file": "a.jsonl.gz", "definition": "d", "category": "c", "held_out": False}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    if data.draw(st.booleans()):
        (tmp_path / "index.json").write_text(data.draw(absurd(index)))
    else:
        file = tmp_path / "a.jsonl.gz"
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    tasks = attempt(lambda: modjax.data.load(tmp_path))
    assert tasks is None or all(isinstance(one.source, str) for task in tasks.values() for one in task)
