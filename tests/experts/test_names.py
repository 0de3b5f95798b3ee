"""Names from the paths of folders: what they are called, and that they differ."""

import pathlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modjax.errors import InputError
from modjax.experts.names import GENERIC, check, of_paths

NAMED = {
    "the last folder": {"/x/math": "math", "/y/code": "code", "/z/lora_r8": "lora_r8", "/z/phi2": "phi2"},
    "the parent of a general name": {
        "/x/a/adapter": "a",
        "/x/b/adapter": "b",
        "/x/c/LoRA-adapter": "c",
        "/x/d/adapter_model": "d",
    },
    "steps of training": {
        "/x/a/checkpoint-500": "a",
        "/x/b/global_step10": "b",
        "/x/c/epoch=3-step=100": "c",
        "/x/d/checkpoint_final": "d",
    },
    "several general names": {"/runs/math/output/checkpoint-500": "math", "/runs/code/final": "code"},
    "the cache of Hugging Face": {f"/hub/models--o--n/snapshots/{'a1' * 20}": "models--o--n"},
    "one name twice": {"/french/math": "french/math", "/german/math": "german/math", "/german/code": "code"},
    "one name twice, below": {"/french/math/final": "math/final", "/german/math/lora": "math/lora"},
    "two steps of one run": {"/x/math/checkpoint-5": "math/checkpoint-5", "/x/math/checkpoint-9": "math/checkpoint-9"},
    "a folder and one in it": {"/x/math": "math", "/x/math/final": "math/final"},
    "numbers": {"/x/1": "1", "/x/2": "2", "/x/adapter3": "adapter3"},
    "a general name alone": {"/adapter": "adapter"},
    "the root": {"/": "root"},
}


@pytest.mark.parametrize("kind", NAMED)
def test_names(kind):
    found = of_paths([pathlib.PurePosixPath(path) for path in NAMED[kind]])
    assert found == list(NAMED[kind].values())


PARTS = st.sampled_from(["a", "b", "math", "adapter", "final", "checkpoint-1"])


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)), unique=True))
def test_names_differ(paths):
    found = of_paths([pathlib.PurePosixPath(path) for path in paths])
    assert len(set(found)) == len(paths)
    assert all(name and name in path for name, path in zip(found, paths, strict=True))


def test_a_folder_twice():
    with pytest.raises(InputError, match="/x/a: is given twice; expected different adapters"):
        of_paths([pathlib.PurePosixPath(path) for path in ("/x/a", "/x/b", "/x/a")])


@pytest.mark.parametrize("name", ["adapter-" * 200 + "!", "-" * 3000, "step" * 500 + "!", "checkpoint-1" * 300 + "!"])
def test_long_names_take_no_time(name):
    start = time.perf_counter()
    assert not GENERIC.fullmatch(name)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", ["a", " ", "é", "猫", "a/b", "..", "x" * 1000, "🙂", "a\nb", "0"])
def test_any_text_is_a_name(name):
    assert check("name", name) == name


@pytest.mark.parametrize("name", ["", None, 3, b"a", ["a"], "a\ud800"])
def test_anything_else_is_none(name):
    with pytest.raises(InputError, match="name=.*: expected "):
        check("name", name)
