import gzip
import os
import pathlib
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.files import (
    plain,
    read_json,
    read_json_object,
    read_lines,
    read_text,
    replaceable,
    safe_name,
    split_lines,
    write_json,
)


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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "value.json: is empty; expected JSON"),
        (b"\xef\xbb\xbf \n", "value.json: is empty; expected JSON"),
        (b"\xff\xfe{}", "value.json: is text in UTF-16"),
        ("{}".encode("utf-16-be"), "value.json: is not JSON"),
        (b'{"a":\r\n"caf\xe9"}', "value.json, line 2: byte 11 is 0xE9, which is not UTF-8"),
        (b'\xef\xbb\xbf{"a":\n"caf\xc3', "value.json, line 2: byte 13 is 0xC3, which is not UTF-8"),
    ],
)
def test_bytes_that_are_no_json(tmp_path, content, says):
    (tmp_path / "value.json").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_json(tmp_path / "value.json")


def test_plain_values_are_those_that_a_file_gives_back(tmp_path):
    value = {"a": (1, np.float32(0.5)), "b": pathlib.Path("x/y"), "c": jnp.int32(3), "d": np.bool_(True)}
    write_json(tmp_path / "value.json", value)
    assert plain(value) == read_json(tmp_path / "value.json") == {"a": [1, 0.5], "b": "x/y", "c": 3, "d": True}
    with pytest.raises(TypeError, match="ndarray"):
        plain(np.zeros(2))


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "value.json").write_bytes(b'\xef\xbb\xbf{"a": "\xef\xbb\xbf"}')
    assert read_json(tmp_path / "value.json") == {"a": "\ufeff"}


def test_lines_end_at_line_ends_alone(tmp_path):
    within = ["a\u2028b", "a\u2029b\x85c", "a\x0bb\x0cc\x1cd\x1de\x1ef"]
    path = tmp_path / "lines.txt"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(("\ufeff" + end.join([*within, " ", "", "z"]) + end).encode())
        assert split_lines(read_text(path)) == [*within, " ", "", "z", ""]
        assert read_lines(path) == [*within, "z"]


def test_gzip_is_read_and_damage_is_named(tmp_path):
    path, content = tmp_path / "a.txt.gz", gzip.compress(b"\xef\xbb\xbfone\ntwo\n")
    path.write_bytes(content)
    assert read_lines(path) == ["one", "two"]
    for damaged, says in ((content[:-4], "truncated"), (b"one", "cannot be read as gzip"), (b"", "has no text")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"a.txt.gz: .*{says}"):
            read_lines(path)


ANY_TEXT = ["a/b", "a\\b", "a b", "..", ".", "", ".hidden", "-flag", "CON", "nul.txt", "com¹", "x" * 300, "é" * 150]
ANY_TEXT += ["🙂", "اسم", "任务", "a\nb", "a\x00b", "end.", "library.json", "C:", "\ud800", "a:b|c?*<>"]


@pytest.mark.parametrize("name", ANY_TEXT, ids=ascii)
def test_safe_names_of_any_text(tmp_path, name):
    safe = safe_name(name)
    assert safe == safe_name(safe) and 0 < len(safe.encode()) <= 100
    assert safe[0] not in ".-" and safe[-1] != "." and safe.split(".")[0].lower() not in ("con", "nul", "com¹")
    (tmp_path / f"{safe}.json").write_text("")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["arrow", "task_1", "a-b", "1.5+x", "Größe", "任务"])
def test_safe_names_stay(name):
    assert safe_name(name) == name


def test_safe_names_differ_from_those_taken():
    names = [
        "a/b",
        "a_b",
        "A_B",
        "a:b",
        "é",
        unicodedata.normalize("NFD", "é"),
        "É",
        *(f"{'x' * 120}{i}" for i in "123"),
    ]
    taken = []
    for name in names:
        taken.append(safe_name(name, taken))
    assert taken[:4] == ["a_b", "a_b-2", "A_B-3", "a_b-4"]
    assert len({unicodedata.normalize("NFD", one).lower() for one in taken}) == len(names)


def test_only_files_and_folders_are_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe: is a device; expected a file to write or replace"):
        write_json(pipe, {})
    with pytest.raises(InputError, match="is a folder; expected a file"):
        write_json(tmp_path, {})
    for path in (pipe, pathlib.Path(os.devnull)):
        with pytest.raises(InputError, match="is no folder, but exists"):
            replaceable(path)
    assert pipe.is_fifo()
