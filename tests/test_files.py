import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.files import plain, read_json, read_json_object, write_json


def test_written_and_read_is_the_same(tmp_path):
    value = {"b": [1, 2.5, None], "a": "Grüße"}
    for _ in range(2):
        write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == read_json_object(tmp_path / "value.json") == value
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_lists_of_numbers_take_a_line_each_and_strings_are_kept(tmp_path):
    value = {"rows": [[1, 2.5], [None, True]], "text": ["[ 1, 2 ]", "[", "]"], "none": []}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert "\n    [1, 2.5],\n    [null, true]\n" in (tmp_path / "value.json").read_text()


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    write_json(tmp_path / "value.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "value.json", object())
    assert read_json(tmp_path / "value.json") == 1


@pytest.mark.parametrize("content, words", [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "found list")])
def test_bad_files_are_named(tmp_path, content, words):
    path = tmp_path / "value.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"value.json: {words}"):
        read_json_object(path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "value.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "value.json")


def test_plain_values_are_those_that_a_file_gives_back(tmp_path):
    value = {"a": (1, np.float32(0.5)), "b": pathlib.Path("x/y"), "c": jnp.int32(3), "d": np.bool_(True)}
    write_json(tmp_path / "value.json", plain(value))
    assert plain(value) == read_json(tmp_path / "value.json") == {"a": [1, 0.5], "b": "x/y", "c": 3, "d": True}
    with pytest.raises(TypeError, match="ndarray"):
        plain(np.zeros(2))
