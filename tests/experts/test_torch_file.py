"""Files of torch.save give the same tensors as torch.load, and no code in them is run."""

import collections
import contextlib
import dataclasses
import enum
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modjax.errors import InputError
from modjax.experts import inert
from modjax.experts.inert import Record, Tensor
from modjax.experts.torch_file import TorchFile


@dataclasses.dataclass
class Settings:
    rank: int = 4
    names: tuple = ("a", "b")


class Kind(enum.Enum):
    LORA = 1


@pytest.fixture
def saved(tmp_path):
    """A function that saves an object with torch and opens the file."""

    def save(content, **options):
        torch.save(content, tmp_path / "file.ckpt", **options)
        return TorchFile(tmp_path / "file.ckpt")

    return save


PLAIN = {
    "text": "naïve \ud800",
    "numbers": [0, -3, 255, 65536, 2**40, -(2**70), 1.5, -0.0, True, False, None],
    "nested": ({"a": [(), [], {}, ("x",), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}, collections.OrderedDict(b=1, a=2)),
    3: "three",
    "again": ["x" * 300] * 3,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(saved, protocol):
    got = saved(PLAIN | {"bytes": b"\x00\xff"}, pickle_protocol=protocol).content
    if protocol > 2:
        assert got["bytes"] == b"\x00\xff"
    assert {key: got[key] for key in PLAIN} == PLAIN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors(saved, dtype):
    whole = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    views = {"whole": whole, "turned": whole.T, "part": whole[1::2, 2:], "one": whole[3], "scalar": whole[2, 2]}
    file = saved(views | {"parameter": torch.nn.Parameter(whole)})
    for name, tensor in (views | {"parameter": whole}).items():
        got = file.read(name, file.content[name])
        assert got.dtype.name == str(dtype).removeprefix("torch.")
        np.testing.assert_array_equal(np.float32(got), tensor.float().numpy())


def test_state_of_a_module_is_a_dict(saved):
    content = saved({"state_dict": torch.nn.Linear(2, 3).state_dict()}).content
    assert list(content["state_dict"]) == ["weight", "bias"] and isinstance(content["state_dict"]["bias"], Tensor)


def test_objects_become_records(saved):
    found = saved(
        {"settings": Settings(), "kind": Kind.LORA, "path": pathlib.PurePosixPath("/a/b"), "set": {1, 2}}
    ).content
    assert found["settings"].name.endswith("test_torch_file.Settings") and isinstance(found["settings"], Record)
    assert found["settings"].get("rank") == 4 and found["settings"].get("names") == ("a", "b")
    assert found["settings"].get("alpha", 7) == 7
    assert found["kind"].args == (1,) and found["path"].args[0] == "/"
    assert set(found["set"].args[0]) == {1, 2}


def test_subclasses_of_containers_keep_what_they_hold(saved):
    class_of = {"dict": collections.defaultdict(dict, {"a": {1: 2}}), "deque": collections.deque([1, 2, 3])}
    found = saved(class_of).content
    assert found["dict"].get("a") == {1: 2} and found["deque"].elements == [1, 2, 3]


class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_nothing_runs(saved, tmp_path):
    bomb = Bomb()
    bomb.target = str(tmp_path / "exploded")
    found = saved({"bomb": bomb, "a": 1}).content
    assert found["a"] == 1 and found["bomb"].name == f"{os.system.__module__}.system"
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "program, words",
    [
        (b"", "exhausted"),
        (b"\x80\x02}q\x00", "exhausted"),
        (b".", "pop from empty list"),
        (b"(lp0\n0.", "instruction POP"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"(S'x'\nios\nsystem\n.", "instruction INST"),
        (b"}]K\x01s.", "a key is a list"),
        (b"K\x01)R.", "a int is called"),
        (b"]K\x01b.", "list is given a state"),
        (b"K\x01K\x02a.", "appended"),
        (b"(K\x01K\x02", "exhausted"),
        (b"u.", "IndexError"),
        (b"h\x05.", "KeyError"),
        (b"X\xff\xff\xff\x7fabc.", "expected"),
        (b"NQ.", "not a storage"),
    ],
)
def test_programs_that_end_in_an_error(program, words):
    with pytest.raises(ValueError, match=words):
        inert.load(program)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=80))
def test_any_program_is_a_value_or_an_error(program):
    try:
        inert.load(b"\x80\x02" + program)
    except ValueError as error:
        assert str(error)


def test_keys_that_would_take_forever_are_refused():
    nested = b")" + b"\x86".join(b"q\x01h\x01" for _ in range(60)) + b"\x86"
    with pytest.raises(ValueError, match="a key is a tuple"):
        inert.load(b"}" + nested + b"K\x01s.")


def rezip(path, change=lambda name, data: data, drop=(), method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if not name.endswith(tuple(drop) or "\0")}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, change(name, data))


def ending(suffix, change):
    return lambda path: rezip(path, lambda name, data: change(data) if name.endswith(suffix) else data)


def replaced(suffix, old, new):
    return ending(suffix, lambda data: data.replace(old, new))


DAMAGES = {
    "text": (lambda path: path.write_text("no archive"), "truncated or not a file of torch.save"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated or not a file"),
    "missing": (lambda path: path.unlink(), "cannot be read"),
    "another zip": (lambda path: rezip(path, drop=["data.pkl"]), "without data.pkl"),
    "compressed": (lambda path: rezip(path, method=zipfile.ZIP_DEFLATED), "is compressed"),
    "big-endian": (replaced("byteorder", b"little", b"big"), "big-endian"),
    "no storage": (lambda path: rezip(path, drop=["data/0"]), "data/0 cannot be read"),
    "short storage": (ending("/data/0", lambda data: data[:-4]), "does not fit"),
    "pickle cut": (ending("data.pkl", lambda data: data[:-9]), "damaged"),
    "bits turned": (lambda path: path.write_bytes(path.read_bytes().replace(b"\x80?", b"\x81?")), "data/0"),
    "other dtype": (replaced("data.pkl", b"FloatStorage", b"DoubleStorage"), "'x' is a DoubleStorage"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_files_are_named(tmp_path, kind):
    damage, words = DAMAGES[kind]
    torch.save({"x": torch.ones(4, 3)}, tmp_path / "file.ckpt")
    damage(tmp_path / "file.ckpt")
    with pytest.raises(InputError, match=words) as error:
        file = TorchFile(tmp_path / "file.ckpt")
        file.read("x", file.content["x"])
    assert str(tmp_path / "file.ckpt") in str(error.value)


@pytest.mark.parametrize("shape, strides, offset", [((4, 4), (3, 1), 0), ((2**20, 3), (0, 1), 0), ((2,), (1,), 11)])
def test_tensors_beyond_their_storage(saved, shape, strides, offset):
    file = saved({"x": torch.ones(4, 3)})
    tensor = dataclasses.replace(file.content["x"], shape=shape, strides=strides, offset=offset)
    with pytest.raises(InputError, match="does not fit in its 48 bytes"):
        file.read("x", tensor)


def test_a_pickle_alone(tmp_path):
    (tmp_path / "plain").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(InputError, match="not a file of torch.save"):
        TorchFile(tmp_path / "plain")


OLD = {"_use_new_zipfile_serialization": False}  # the format before torch 1.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_in_the_old_format(saved, dtype):
    whole = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    views = {
        "whole": whole,
        "turned": whole.T,
        "part": whole[1::2, 2:],
        "other": 2 * whole,
        "counts": torch.ones(3).int(),
    }
    file = saved(collections.OrderedDict(views, last=torch.nn.Parameter(whole[0].clone())), **OLD)
    views |= {"last": whole[0]}
    assert list(file.content) == list(views)
    for name in views.keys() - {"counts"}:
        got = file.read(name, file.content[name])
        assert got.dtype.name == str(dtype).removeprefix("torch.")
        np.testing.assert_array_equal(np.float32(got), views[name].float().numpy())
    with pytest.raises(InputError, match="'counts' is a IntStorage"):
        file.read("counts", file.content["counts"])


def test_plain_values_in_the_old_format(saved):
    assert saved(PLAIN, **OLD).content == PLAIN


def test_nothing_runs_in_the_old_format(saved, tmp_path):
    bomb = Bomb()
    bomb.target = str(tmp_path / "exploded")
    assert saved({"bomb": bomb}, **OLD).content["bomb"].name == f"{os.system.__module__}.system"
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("cut", [1, 20, 47, 60, 120, 200, 300])
def test_a_damaged_file_in_the_old_format(tmp_path, cut):
    torch.save({"x": torch.ones(4, 3)}, tmp_path / "file.bin", **OLD)
    content = (tmp_path / "file.bin").read_bytes()
    (tmp_path / "file.bin").write_bytes(content[:-cut])
    with pytest.raises(InputError, match="file.bin: .*(damaged|truncated)"):
        TorchFile(tmp_path / "file.bin")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """(path, content) of a file in the old format."""
    path = tmp_path_factory.mktemp("old") / "file.bin"
    torch.save({"x": torch.ones(4, 3)}, path, **OLD)
    return path, path.read_bytes()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_any_change_of_a_file_in_the_old_format(old, changes):
    path, content = old[0], bytearray(old[1])
    for share, byte in changes:
        content[15 + int(share * (len(content) - 15))] = byte  # after the magic number
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        file = TorchFile(path)
        for name, tensor in file.content.items() if isinstance(file.content, dict) else ():
            if isinstance(tensor, Tensor):
                file.read(name, tensor)
