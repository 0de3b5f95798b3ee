"""Records from files of every kind, from folders laid out as on the hub, and from the hub; and faulty ones."""

import gzip
import json

import pytest

from modjax.errors import InputError
from modjax.eval.benchmarks.catalogue import BENCHMARKS
from modjax.eval.benchmarks.records import locate

PIQA, ARC, BBH = (BENCHMARKS[name] for name in ("piqa", "arc_easy", "bbh"))
ROWS = [{"goal": f"goal {i}", "sol1": "this", "sol2": "that", "label": i % 2} for i in range(3)]
LETTERED = {"text": ["red", "blue"], "label": ["A", "B"]}
QUESTION = {"question": "which?", "choices": LETTERED, "answerKey": "B"}


def _lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def _parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_every_kind_of_file_gives_the_same_questions(tmp_path):
    (tmp_path / "a.jsonl").write_text(_lines(ROWS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(_lines(ROWS).encode()))
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(json.dumps({"examples": ROWS}).encode()))
    _parquet(tmp_path / "e.parquet", ROWS)
    found = [PIQA.questions(path) for path in sorted(tmp_path.iterdir())]
    assert len(found[0]) == 3 and found[0][1].gold == 1 and all(one == found[0] for one in found)


def test_a_folder_as_on_the_hub_gives_its_config_and_split(tmp_path):
    for config, answer in (("ARC-Easy", "B"), ("ARC-Challenge", "A")):
        for split, n in (("train", 5), ("validation", 4), ("test-00000-of-00002", 2), ("test-00001-of-00002", 1)):
            _parquet(tmp_path / config / f"{split}.parquet", [QUESTION | {"answerKey": answer}] * n)
    assert [one.gold for one in ARC.questions(tmp_path)] == [1, 1, 1]
    assert [one.gold for one in BENCHMARKS["arc_challenge"].questions(tmp_path)] == [0, 0, 0]


def test_the_tasks_of_bbh_are_named_by_file_or_folder(tmp_path):
    rows = [{"input": f"{i}", "target": "x"} for i in range(6)]
    for task in ("temporal_sequences", "snarks"):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{task}.json").write_text(json.dumps({"examples": rows}))
        _parquet(tmp_path / "hub" / task / "test-00000-of-00001.parquet", rows)
    assert BBH.questions(tmp_path / "files") == BBH.questions(tmp_path / "hub")
    assert [one.group for one in BBH.questions(tmp_path / "files")] == ["snarks", "temporal_sequences"]


def test_the_hub_is_read_by_the_names_of_the_benchmark(monkeypatch):
    import datasets

    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list([QUESTION])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [one.gold for one in ARC.questions()] == [1]
    assert asked == [("allenai/ai2_arc", "ARC-Easy", "test")]


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    import datasets

    def load(*arguments, **named):
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        InputError, match="baber/piqa: cannot be loaded from the hub .Couldn't reach the Hub.; expected"
    ):
        PIQA.questions()


WRONG = {
    "other keys": (
        {"goal": "x", "solution": "y"},
        "line 1: has the keys goal, solution; expected goal, sol1, sol2, label",
    ),
    "not an object": (["x"], "line 1: found list; expected an object"),
    "a number as text": ({**ROWS[0], "goal": 3}, "line 1: key 'goal' is 3; expected a string"),
    "a label too large": ({**ROWS[0], "label": 2}, "line 1: key 'label' is 2; expected the index of one of 2 choices"),
    "no label, as in test sets": (
        {**ROWS[0], "label": -1},
        "key 'label' is -1; expected the index of one of 2 choices",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_records_are_named(name, tmp_path):
    record, message = WRONG[name]
    (tmp_path / "x.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=message):
        PIQA.questions(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (QUESTION | {"answerKey": "C"}, "key 'answerKey' is 'C'; expected one of the labels A, B"),
        (QUESTION | {"choices": {"text": "x"}}, "key 'choices' is .*; expected {text: .*, label: .*}"),
        ({"query": "x", "choices": [], "gold": 0}, "key 'choices' is .*; expected a list of strings"),
        ({"query": "x", "choices": ["a", 1], "gold": 0}, "key 'choices' is .*; expected a list of strings"),
    ],
)
def test_wrong_choices_are_named(record, message, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=message):
        ARC.questions(tmp_path / "x.jsonl")


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(InputError, match="nowhere.jsonl: cannot be read"):
        PIQA.questions(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="has no files; expected some that end in .jsonl"):
        PIQA.questions(tmp_path)
    (tmp_path / "x.jsonl").write_text("\n")
    with pytest.raises(InputError, match="x.jsonl: found no questions of split 'validation'"):
        PIQA.questions(tmp_path / "x.jsonl")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="x.parquet: cannot be read as Parquet"):
        PIQA.questions(tmp_path / "x.parquet")
    (tmp_path / "few.json").write_text(json.dumps([{"input": "x", "target": "y"}] * 5))
    with pytest.raises(InputError, match="bbh, task 'few': has 5 examples; expected more than the 5 of prompts"):
        BBH.questions(tmp_path / "few.json")


def test_a_folder_of_several_benchmarks(tmp_path):
    (tmp_path / "piqa.jsonl.gz").touch()
    (tmp_path / "bbh").mkdir()
    assert locate(tmp_path, "piqa") == tmp_path / "piqa.jsonl.gz" and locate(tmp_path, "bbh") == tmp_path / "bbh"
    with pytest.raises(InputError, match="has no boolq, as a folder or with one of .jsonl, .jsonl.gz"):
        locate(tmp_path, "boolq")
