"""Reading and writing tasks in every form, and errors for input that cannot be read."""

import gzip
import json

import pytest

from modjax import data
from modjax.data import sources
from modjax.data.example import Example
from modjax.data.splits import assign_split
from modjax.data.tasks import Task, Tasks
from modjax.errors import InputError

LINE = {"id": "t-0", "split": "train", "input": "wolf", "outputs": ["wolves"]}
ENTRY = {"task": "plural", "file": "plural.jsonl", "definition": "Give the plural.", "category": "words"}


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_folder(path, entry, *records):
    write_lines(path / "plural.jsonl", *records)
    (path / "index.json").write_text(json.dumps([entry]))
    return path


def write_natural_instructions(root):
    (root / "tasks").mkdir(parents=True)
    (root / "splits" / "default").mkdir(parents=True)
    for name in ("task001_kept", "task002_test", "task003_out"):
        instances = [{"id": f"{name}-{i}", "input": f"in {i}", "output": [f"out {i}"]} for i in range(8)]
        content = {"Definition": ["Do it.", "Or so."], "Categories": ["Misc."], "Instances": instances}
        (root / "tasks" / f"{name}.json").write_text(json.dumps(content))
    (root / "splits" / "default" / "test_tasks.txt").write_text("task002_test\n")
    (root / "splits" / "default" / "excluded_tasks.txt").write_text("task003_out\n")
    return root


def test_a_task_folder_gives_definition_and_input_as_the_prompt(tmp_path):
    tasks = data.load(write_folder(tmp_path, ENTRY, LINE, LINE | {"split": "test", "outputs": ["a", "b", "a"]}))
    task = tasks["plural"]
    assert task.examples[0] == Example("Give the plural.\n\nwolf", "wolves", "train")
    assert (task.family, task.held_out, task.definition) == ("words", False, "Give the plural.")
    assert (task[1].target, task[1].references, task[1].split) == ("a", ("a", "b"), "test")


def test_gzipped_files_and_lines_without_a_split_are_read(tmp_path):
    record = {key: value for key, value in LINE.items() if key != "split"}
    content = "\n".join(json.dumps(record) for _ in range(6)).encode()
    (tmp_path / "plural.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "index.json").write_text(json.dumps([ENTRY | {"file": "plural.jsonl.gz"}]))
    splits = [example.split for example in data.load(tmp_path)["plural"]]
    assert splits == [assign_split(index) for index in range(6)]


@pytest.mark.parametrize(
    ("said", "held_out"),
    [
        ({}, False),
        ({"official_split": "train"}, False),
        ({"official_split": "test"}, True),
        ({"official_split": "test", "held_out": False}, False),
        ({"held_out": True}, True),
    ],
)
def test_what_holds_a_task_out(tmp_path, said, held_out):
    assert data.load(write_folder(tmp_path, ENTRY | said, LINE))["plural"].held_out is held_out


def test_a_cluster_is_a_finer_family_than_a_category(tmp_path):
    assert data.load(write_folder(tmp_path, ENTRY | {"cluster": "nouns"}, LINE))["plural"].family == "nouns"


@pytest.mark.parametrize("pattern", ["plu*", "words", "core*"])
def test_only_matches_name_family_or_group_and_opens_no_other_file(tmp_path, pattern):
    write_folder(tmp_path, ENTRY, LINE)
    other = {"task": "absent", "file": "no-such-file.jsonl", "definition": ""}
    (tmp_path / "index.json").write_text(json.dumps([ENTRY | {"group": "core64"}, other]))
    assert list(data.load(tmp_path, only=[pattern])) == ["plural"]
    with pytest.raises(InputError, match=r"found no tasks that match \['singular'\]"):
        data.load(tmp_path, only=["singular"])


def test_natural_instructions_with_its_official_splits(tmp_path):
    tasks = data.load(write_natural_instructions(tmp_path))
    assert list(tasks.training) == ["task001_kept"] and list(tasks.held_out) == ["task002_test"]
    assert tasks["task001_kept"][4] == Example("Do it.\n\nin 4", "out 4", assign_split(4))
    assert tasks["task001_kept"].family == "Misc."


def test_json_lines_of_several_tasks_in_a_file_and_a_folder(tmp_path):
    first = {"task": "a", "source": "1 + 1", "target": "2", "family": "sums"}
    second = {"task": "b", "source": "up", "target": "down", "split": "test", "held_out": True}
    path = write_lines(tmp_path / "mixed.jsonl", first, second, first | {"source": "2 + 1", "target": "3"})
    for tasks in (data.load(path), data.load(tmp_path)):
        assert [example.target for example in tasks["a"]] == ["2", "3"]
        assert tasks["a"].family == "sums" and tasks["a"][1].split == assign_split(1)
        assert tasks["b"].held_out and tasks["b"][0].split == "test"
    assert list(data.load(path, only="sums")) == ["a"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_are_no_text_in_any_form(tmp_path, end):
    within = "wolf\u2028cub\x85s\x0c"  # characters at which str.splitlines splits
    write_folder(tmp_path, ENTRY | {"definition": within}, LINE, LINE | {"input": within})
    write_natural_instructions(tmp_path / "official")
    (tmp_path / "lines").mkdir()
    write_lines(tmp_path / "lines" / "a.jsonl", {"task": within, "source": within, "target": "x"})
    forms = (tmp_path, tmp_path / "official", tmp_path / "lines")
    expected = [{name: tuple(task) for name, task in data.load(form).items()} for form in forms]
    assert expected[0]["plural"][1].source == f"{within}\n\n{within}" and within in expected[2]
    for file in tmp_path.rglob("*.*"):
        text = json.dumps(json.loads(file.read_text()), ensure_ascii=False) if file.suffix == ".json" else None
        lines = [
            json.dumps(json.loads(line), ensure_ascii=False) for line in file.read_text().split("\n") if line[:1] == "{"
        ]
        text = text or end.join(lines) or file.read_text().replace("\n", end)
        file.write_bytes(("\ufeff" + text).encode())
    assert [{name: tuple(task) for name, task in data.load(form).items()} for form in forms] == expected


def test_what_is_written_reads_back_equal(tmp_path):
    prompts = (Example("Say it.\n\nhé", "hé", "train"), Example("Say it.\n\nx", "x", "test", ("x", "X")))
    tasks = Tasks(
        [
            Task("echo/1", prompts, "speech", True, "Say it."),
            Task("mixed", (Example("Up?", "down", "validation"),), None, False, "Opposites."),
        ]
    )
    sources.write(tasks, tmp_path / "out")
    assert dict(data.load(tmp_path / "out")) == dict(tasks)
    assert [entry["whole_prompt"] for entry in json.loads((tmp_path / "out/index.json").read_text())] == [
        False,
        True,
    ]


def test_open48_reads_back_equal_and_is_written_in_the_same_bytes(tmp_path):
    tasks = data.load("open48", only=["numbers"])
    assert len(tasks) == 6
    for name in ("one", "two"):
        sources.write(tasks, tmp_path / name)
    assert dict(data.load(tmp_path / "one")) == dict(tasks)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["open49", "hub:owner/name"])
def test_an_unknown_name_lists_what_is_accepted(name):
    with pytest.raises(InputError, match=rf"no tasks at '{name}'; expected \"open48\", \"flan\", a folder with"):
        data.load(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", r"index.json: is not JSON \(.*line 1"),
        ("{}", "index.json: found dict; expected a list of tasks"),
        ("[]", "found no tasks; expected at least one"),
        ("[3]", "index.json, entry 0: found int; expected an object with the key 'task'"),
        ('[{"file": "f"}]', r"entry 0: key 'task' is missing \(the keys are file\); expected a string"),
        ('[{"task": "t"}]', "entry 0: key 'file' is missing"),
        (
            '[{"task": "t", "file": "f", "held_out": "no"}]',
            "entry 0: key 'held_out' is 'no'; expected true or",
        ),
        ('[{"task": "t", "file": "gone.jsonl"}]', "gone.jsonl: cannot be read .No such file"),
    ],
)
def test_a_bad_index_is_named(tmp_path, content, message):
    (tmp_path / "f").write_text(json.dumps(LINE))
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "plural.jsonl: found no examples"),
        (b'\n{"input": ', r"plural.jsonl, line 2: not JSON \(.*\); expected one object per line"),
        (b'["wolf"]', "line 1: found list; expected an object with the key"),
        (b'{"outputs": ["wolves"]}', r"line 1: key 'input' is missing \(the keys are outputs\)"),
        (b'{"input": "wolf"}', "line 1: key 'outputs' is missing .* expected a list"),
        (
            b'{"input": "wolf", "outputs": []}',
            r"line 1: key 'outputs' is \[\]; expected a list of one or more",
        ),
        (
            b'{"input": "wolf", "outputs": [7]}',
            r"key 'outputs' is \[7\]; expected a list of one or more strings",
        ),
        (
            b'{"input": "w", "outputs": ["w"], "split": "dev"}',
            "line 1: key 'split' is 'dev'; expected one of",
        ),
        (b'{"input": "\\ud800", "outputs": ["w"]}', "line 1: key 'input'=.*lone surrogates"),
        (b'{"input": "w", "outputs": ["\\ud800"]}', "line 1: key 'outputs'=.*lone surrogates"),
        (b"\xff\xfe", "plural.jsonl: is text in UTF-16"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    write_folder(tmp_path, ENTRY)
    (tmp_path / "plural.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


@pytest.mark.parametrize("damage", [lambda packed: packed[: len(packed) // 2], lambda packed: b"plain text"])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    (tmp_path / "plural.jsonl.gz").write_bytes(damage(gzip.compress(json.dumps(LINE).encode())))
    (tmp_path / "index.json").write_text(json.dumps([ENTRY | {"file": "plural.jsonl.gz"}]))
    with pytest.raises(InputError, match="plural.jsonl.gz: cannot be read as gzip"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Definition": None}, "task001_kept.json: key 'Definition' is None; expected a list"),
        ({"Definition": []}, r"key 'Definition' is \[\]; expected a list of one or more strings"),
        ({"Categories": "Misc."}, "key 'Categories' is 'Misc.'; expected a list"),
        ({"Instances": []}, "task001_kept.json: 'Instances' is empty"),
        ({"Instances": [{"output": ["x"]}]}, "task001_kept.json, instance 0: key 'input' is missing"),
        ({"Instances": [{"input": "x", "output": "x"}]}, "instance 0: key 'output' is 'x'; expected a list"),
    ],
)
def test_a_bad_natural_instructions_file_is_named(tmp_path, change, message):
    path = write_natural_instructions(tmp_path) / "tasks" / "task001_kept.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


@pytest.mark.parametrize("key", ["task", "source", "target"])
def test_a_missing_key_of_json_lines_is_named(tmp_path, key):
    record = {"task": "a", "source": "1 + 1", "target": "2"}
    path = write_lines(tmp_path / "tasks.jsonl", record, {k: v for k, v in record.items() if k != key})
    with pytest.raises(InputError, match=f"tasks.jsonl, line 2: key '{key}' is missing"):
        data.load(path)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("inputs", "targets"),
        ("inputs_pretokenized", "targets_pretokenized"),
        ("prompt", "completion"),
        ("question", "answer"),
    ],
)
def test_a_file_of_lines_without_tasks_is_a_task(tmp_path, source, target):
    """As P3's files: one for each prompt of a data set."""
    beside = {"inputs": [1, 2], "targets": [3]} if source == "inputs_pretokenized" else {}
    lines = [{source: "x", target: "y"}, {source: "x", target: ["y", "z"], "id": 7}]
    write_lines(tmp_path / "imdb_Sentiment.jsonl", *(beside | line for line in lines))
    (tmp_path / "rte_GPT.jsonl.gz").write_bytes(gzip.compress(json.dumps({source: "u", target: "v"}).encode()))
    tasks = data.load(tmp_path)
    assert {name: [(e.source, e.target, e.references, e.id) for e in task] for name, task in tasks.items()} == {
        "imdb_Sentiment": [("x", "y", (), ""), ("x", "y", ("y", "z"), "7")],
        "rte_GPT": [("u", "v", (), "")],
    }
    assert list(data.load(tmp_path, only="rte*")) == ["rte_GPT"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"inputs": "a", "targets": "b"}, {"inputs": "a"}], "line 2: key 'target' is missing"),
        ([{"inputs": "a", "targets": "b"}, {"task": "t"}], "line 2: has the key 'task'; the first line has none"),
        ([{"inputs": "a", "targets": []}], r"line 1: key 'targets' is \[\]; expected a list of one or more"),
        ([{"task": "t", "inputs": "a", "targets": 3}], "line 1: key 'targets' is 3; expected a string"),
        ([7], "line 1: found int; expected an object"),
    ],
)
def test_a_bad_line_of_one_task_is_named(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        data.load(write_lines(tmp_path / "t.jsonl", *lines))


def test_ids_are_kept(tmp_path):
    tasks = Tasks([Task("t", [Example("a", "b", "train", id="of the source"), Example("c", "d", "test")])])
    sources.write(tasks, tmp_path / "out")
    assert [example.id for example in data.load(tmp_path / "out")["t"]] == ["of the source", "t-1"]
