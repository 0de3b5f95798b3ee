"""Data sets through `datasets`: local tables of every format, ids of the hub, columns, splits, draws, and errors."""

import csv
import gzip
import json
import os
import shutil

import numpy as np
import pytest

from modjax import data
from modjax.data import sources
from modjax.data.example import Example
from modjax.data.splits import assign_split
from modjax.errors import InputError

COLUMNS = {"source": "question", "target": "answer", "task": "topic", "split": "part"}


def contents(tasks):
    return {name: tuple(task) for name, task in tasks.items()}


def write(table, path):
    """Writes a table in the format that the path ends in."""
    import pyarrow
    import pyarrow.parquet

    rows = table.to_pylist()
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".arrow":
        with pyarrow.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, table.column_names)
            writer.writeheader()
            writer.writerows(rows)
    elif path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv", "t.json", "t.jsonl", "t.jsonl.gz"])
def test_every_format_gives_the_same_tasks(name, table, offline, tmp_path):
    path = write(table, tmp_path / name)
    tasks = data.load({"files": str(path), "columns": COLUMNS})
    splits = {"train": "train", "dev": "validation", "test": "test"}
    rows = table.to_pylist()
    assert contents(tasks) == {
        topic: tuple(Example(r["question"], r["answer"], splits[r["part"]]) for r in rows if r["topic"] == topic)
        for topic in "ab"
    }
    assert tasks["a"].sizes == {"train": 2, "validation": 2, "test": 2} and len(tasks["a"]) == 6
    assert os.listdir(offline)  # the rows lie there, not in memory


def test_a_stream_gives_what_a_table_gives_and_keeps_nothing(parquet, offline):
    given = {"files": str(parquet), "columns": COLUMNS}
    expected = contents(data.load(given | {"rows": 7}))
    shutil.rmtree(offline)
    found = data.load(given | {"rows": 7, "streaming": True})
    assert contents(found) == expected and sum(map(len, expected.values())) == 7
    assert not offline.exists() or not list(offline.rglob("*.arrow"))
    assert found["a"].fingerprint != data.load(given | {"rows": 5, "streaming": True})["a"].fingerprint


def test_what_datasets_saves_to_disk_is_read(table, offline, tmp_path):
    import datasets

    whole = datasets.Dataset(table).rename_columns({"question": "inputs", "answer": "targets"}).remove_columns("part")
    parts = datasets.DatasetDict({"train": whole.select(range(8)), "test": whole.select(range(8, 12))})
    parts.save_to_disk(tmp_path / "both")
    whole.save_to_disk(tmp_path / "one")
    assert len(data.load(tmp_path / "both")["both"]) == 12
    tasks = data.load({"files": str(tmp_path / "both"), "columns": {"task": "topic"}})
    assert tasks["a"].sizes == {"train": 4, "validation": 0, "test": 2}
    assert list(data.load(tmp_path / "one")) == ["one"]
    one = data.load({"files": str(tmp_path / "one"), "columns": {"task": "topic"}})
    assert [example.split for example in one["a"]] == [assign_split(i) for i in range(6)]


def test_files_in_a_folder_say_their_split_in_their_names(table, offline, tmp_path):
    folder = tmp_path / "hub form"
    folder.mkdir()
    write(table.slice(0, 8).drop_columns("part"), folder / "train-00000-of-00002.parquet")
    write(table.slice(8, 2).drop_columns("part"), folder / "train-00001-of-00002.parquet")
    write(table.slice(10, 2).drop_columns("part"), folder / "valid-00000-of-00001.parquet")
    (task,) = data.load(folder).values()  # usual names of columns: question and answer
    assert task.name == "hub form" and task.sizes == {"train": 10, "validation": 2, "test": 0}


def test_files_of_each_split_may_be_given(table, offline, tmp_path):
    for i, name in enumerate(("x1.csv", "x2.csv", "y.csv")):
        write(table.slice(4 * i, 4).drop_columns("part"), tmp_path / name)
    files = {"train": str(tmp_path / "x*.csv"), "test": [str(tmp_path / "y.csv")]}
    (task,) = data.load({"files": files, "name": "sums"}).values()
    assert task.name == "sums" and task.sizes == {"train": 8, "validation": 0, "test": 4}
    assert task[0].target == "0"  # a number in CSV


def test_texts_are_made_of_columns_and_labels_have_names(offline, tmp_path):
    import datasets

    rows = {"text": ["good", "bad"], "label": [1, 0], "meta": [{"of": "x"}, {"of": "y"}], "key": [7, 8]}
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "meta": {"of": datasets.Value("string")},
            "key": datasets.Value("int64"),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test.parquet")
    columns = {"source": "{meta.of}: {text}?\nAnswer:", "target": " {label}", "task": "label", "id": "key"}
    tasks = data.load({"files": str(tmp_path / "test.parquet"), "columns": columns})
    assert contents(tasks) == {
        "yes": (Example("x: good?\nAnswer:", " yes", "test"),),
        "no": (Example("y: bad?\nAnswer:", " no", "test"),),
    }
    assert tasks["no"][0].id == "8"


def test_a_list_of_answers_is_a_list_of_references(offline, tmp_path):
    rows = [{"inputs": "a", "targets": ["x", "y", "x"]}, {"inputs": "b", "targets": ["z"]}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (task,) = data.load(tmp_path / "t.json").values()
    assert [(one.target, one.references) for one in task] == [("x", ("x", "y")), ("z", ())]


def test_a_draw_is_the_shuffle_of_datasets(parquet, offline):
    import datasets

    given = {"files": str(parquet), "columns": COLUMNS | {"split": None}, "most": 4, "seed": 7}
    tasks = data.load(given)
    whole = datasets.load_dataset("parquet", data_files=str(parquet))["train"]
    for name, task in tasks.items():
        drawn = whole.filter(lambda row, name=name: row["topic"] == name).shuffle(7).select(range(4))
        assert [example.target for example in task] == drawn["answer"][:]
        assert [example.split for example in task] == [assign_split(i) for i in range(4)]


def test_where_keeps_rows_by_the_values_of_columns(parquet, offline):
    tasks = data.load({"files": str(parquet), "columns": COLUMNS, "where": {"part": ["dev"], "topic": ("b", "c")}})
    assert [(name, task.sizes["validation"], len(task)) for name, task in tasks.items()] == [("b", 2, 2)]


def test_only_goes_by_the_name_of_the_task(parquet, offline):
    assert list(data.load({"files": str(parquet), "columns": COLUMNS}, only="b")) == ["b"]
    with pytest.raises(InputError, match=r"found no tasks that match \['c'\]"):
        data.load({"files": str(parquet), "columns": COLUMNS}, only=["c"])


def test_a_fingerprint_is_that_of_the_files_and_of_the_choice(table, offline, tmp_path):
    def fingerprint(**changed):
        given = {"files": str(tmp_path / "t.parquet"), "columns": COLUMNS} | changed
        return data.load(given)["a"].fingerprint

    path = write(table, tmp_path / "t.parquet")
    first = fingerprint()
    os.utime(path, (0, 0))
    assert fingerprint() == first
    others = [fingerprint(columns=COLUMNS | {"source": "{question}!"}), fingerprint(most=3), fingerprint(rows=9)]
    changed = table.set_column(1, "answer", [[*map(str, range(11)), "other"]])
    write(changed, path)
    os.utime(path, (0, 0))  # content decides, not times
    others.append(fingerprint())
    assert len({first, *others}) == 5
    assert data.load({"files": str(path), "columns": COLUMNS})["b"][5].target == "other"


def cached(offline, tmp_path, name):
    """Puts a data set into the cache as a download of owner/NAME leaves it."""
    import datasets

    parts = {}
    for split, rows in (("train", 6), ("validation", 2)):
        made = {"question": [f"{split} {i}" for i in range(rows)], "answer": [str(i) for i in range(rows)]}
        parts[split] = str(tmp_path / f"{split}.parquet")
        datasets.Dataset.from_dict(made).to_parquet(parts[split])
    loaded = datasets.load_dataset("parquet", data_files=parts)
    made = os.path.dirname(loaded["train"].cache_files[0]["filename"])
    folder = offline / f"owner___{name}" / "default" / "0.0.0" / "c0ffee"
    shutil.copytree(made, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info |= {"dataset_name": name, "config_name": "default", "builder_name": "parquet"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for file in folder.glob("parquet-*.arrow"):
        file.rename(folder / file.name.replace("parquet-", f"{name}-"))
    return folder


def test_a_data_set_in_the_cache_needs_no_network(offline, tmp_path, caplog, monkeypatch):
    import datasets

    folder = cached(offline, tmp_path, "sums")
    caplog.clear()
    for source in ("owner/sums", {"id": "owner/sums"}):
        (task,) = data.load(source).values()
        assert task.name == "sums" and task.sizes == {"train": 6, "validation": 2, "test": 0}
        assert task[6] == Example("validation 0", "0", "validation")
    assert not caplog.records
    assert sources.fetch("owner/sums") == [str(folder)]
    monkeypatch.setattr(datasets, "load_dataset", None)  # not even asked for
    chosen = data.load({"id": "owner/sums", "splits": {"test": "validation"}})["sums"]
    assert chosen.sizes == {"train": 0, "validation": 0, "test": 2}


def test_a_path_in_a_folder_that_exists_is_no_id(offline, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    with pytest.raises(InputError, match="no tasks at 'owner/name'; expected"):
        data.load("owner/name")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": "owner/name"}, "owner/name: cannot be loaded .*; expected a path, or a data set that is in"),
        ("owner/name", "owner/name: cannot be loaded .*Couldn't reach 'owner/name' on the Hub"),
        ({}, "tasks: id='' and files=None: expected one of them"),
        ({"id": "a/b", "files": "x"}, "tasks: id='a/b' and files='x': expected one of them"),
        ({"files": "gone.csv"}, "files: 'gone.csv' names no file"),
        ({"files": {"dev2": "gone.csv"}}, "name of a split='dev2': expected one of train"),
        ({"files": "HERE.txt"}, "expected a file that ends in parquet, arrow, csv"),
        ({"files": ["HERE", "HERE.csv"]}, "files: found csv and parquet; expected files of one format"),
        ({"files": "HERE.csv"}, "HERE.csv: cannot be loaded .*; expected a table"),
        ({"files": "HERE", "most": -1}, "most=-1"),
        ({"files": "HERE", "column": {}}, "column: no such setting of Settings; did you mean 'columns'"),
        ({"files": "HERE", "columns": {"sauce": "x"}}, "sauce: no such setting of Columns; did you mean 'source'"),
        ({"files": "HERE", "columns": {"source": "{questio}"}}, "has no column 'questio'; its columns are question"),
        ({"files": "HERE", "columns": {"source": "{"}}, "columns: '{': .*expected columns in braces"),
        ({"files": "HERE", "columns": {"split": "topic"}}, "column 'topic' has the split 'a'; expected one of train"),
        ({"files": "HERE", "where": {"x": [1]}}, "where has no column 'x'"),
        ({"files": "HERE", "where": {"topic": ["z"]}}, "found no tasks"),
        ({"files": "HERE", "splits": {"train": "x"}}, "split 'train'='x': expected one of rows"),
        ({"files": "HERE", "form": "p3"}, "form='p3': expected one of columns, flan"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(given, message, parquet, offline, monkeypatch):
    monkeypatch.chdir(parquet.parent)
    shutil.copy(parquet, "HERE")
    os.rename("HERE", "HERE.parquet")
    for name in ("HERE.txt", "HERE.csv"):
        with open(name, "w") as file:
            file.write('a,b\n"1,2\n3,4,5\n')
    if isinstance(given, dict) and given.get("files") == "HERE":
        given = given | {"files": "HERE.parquet"}
    if given == {"files": ["HERE", "HERE.csv"]}:
        given = {"files": ["HERE.parquet", "HERE.csv"]}
    with pytest.raises(InputError, match=message) as raised:
        data.load(given)
    assert "\n" not in str(raised.value)


def test_what_a_column_of_numbers_or_labels_lacks_is_no_text(offline, tmp_path):
    import datasets

    (tmp_path / "t.csv").write_text("source,target\na,1\nb,\n")
    (task,) = data.load(tmp_path / "t.csv").values()
    assert task[0].target == "1.0"
    with pytest.raises(InputError, match="row 1: column 'target' is (None|nan); expected a text"):
        list(task)
    features = datasets.Features({"source": datasets.Value("string"), "target": datasets.ClassLabel(names=["no"])})
    datasets.Dataset.from_dict({"source": ["a"], "target": [-1]}, features=features).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="row 0: column 'target' is None; expected a text"):
        list(data.load(tmp_path / "t.parquet")["t"])


@pytest.mark.parametrize(("value", "message"), [(None, "is None; expected a text"), ([], r"is \[\]; expected at")])
def test_a_value_that_is_no_text_names_its_row(value, message, offline, tmp_path):
    rows = [{"source": "a", "target": ["b"]}, {"source": "c", "target": value}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (task,) = data.load(tmp_path / "t.json").values()
    with pytest.raises(InputError, match=f"t.json, row 1: column 'target' {message}"):
        list(task)


def test_examples_are_read_when_they_are_asked_for(parquet, offline, monkeypatch):
    from modjax.data import table

    read = []
    monkeypatch.setattr(table, "_named", lambda feature, value: read.append(value) or value)
    tasks = data.load({"files": str(parquet), "columns": COLUMNS})
    known = len(read)  # the names of tasks and splits
    assert [task.sizes["train"] for task in tasks.values()] == [2, 2] and len(tasks["a"]) == 6
    assert tasks["a"].fingerprint and len(read) == known
    assert [one.target for one in tasks["a"].split("test")] == ["2", "8"]
    assert len(read) == known + 2 * len(COLUMNS)
    assert tasks["b"][-1].target == "11" and [one.target for one in tasks["b"][:2]] == ["1", "3"]
    assert len(read) == known + 5 * len(COLUMNS)
    assert tasks["a"].split("other") == () and isinstance(tasks["a"].examples.rows_n, np.ndarray)
