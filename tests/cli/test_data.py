"""`modjax data`: lists, counts, writes and fetches; a data set described in a config is trained on."""

import json

import pytest

from modjax import data

TABLE = """
task     train  validation  test
a           12           6     6
b           12           6     6
c           12           6     6
d           12           6     6  held out
4 tasks     48          24    24
"""


@pytest.fixture
def described(tasks_file, offline, tmp_path):
    """The settings of a table with columns of other names: the same tasks, but that none is held out."""
    rows = [json.loads(line) for line in tasks_file.read_text().splitlines()]
    table = [{"q": one["source"], "a": one["target"], "of": one["task"], "part": one["split"]} for one in rows]
    (tmp_path / "table.json").write_text(json.dumps(table))
    columns = {"source": "q", "target": "a", "task": "of", "split": "part"}
    return {"files": str(tmp_path / "table.json"), "columns": columns}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache of datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_ls_lists_tasks_and_their_sizes(modjax, config_file, tasks_file):
    for source in (f"--tasks={tasks_file}", f"--config={config_file}"):
        code, out, err = modjax("data", "ls", source, "--only=*")
        assert (code, err) == (0, "")
        kept = [line.replace("family  ", "") for line in out.splitlines()]
        assert out.splitlines()[0].split() == ["task", "family", "train", "validation", "test"]
        assert [line.split()[-3:] for line in kept[1:-2]] == [["12", "6", "6"]] * 3
        assert kept[-2].endswith("6     6  held out") and kept[-1].split() == ["4", "tasks", "48", "24", "24"]
    _, out, _ = modjax("data", "ls", f"--tasks={tasks_file}", "--only=b")
    assert out.splitlines()[-1].split() == ["1", "tasks", "12", "6", "6"]


def test_ls_of_a_described_table(modjax, described):
    code, out, _ = modjax("data", "ls", f"--tasks={described}")
    assert code == 0
    assert out.strip() == TABLE.replace("  held out", "").strip()


def test_stat_counts_tokens_under_the_models_tokenizer(modjax, config_file, checkpoint, tasks_file):
    for flags in ((f"--tasks={tasks_file}", f"--model={checkpoint}", "--length=32"), (f"--config={config_file}",)):
        code, out, err = modjax("data", "stat", *flags)
        assert code == 0, err
        head, *lines = (line.split() for line in out.splitlines())
        assert head == ["task", "examples", "tokens", "targets", "median", "longest", ">", "32", "rows", "shared"]
        a, total = lines[0], lines[-1]
        # "<user> what is WORD OTHER <model>" and "yes <end>": each six tokens, and the target's
        assert a[:7] == ["a", "12", "96", "24", "8", "8", "0"]
        assert total[:5] == ["4", "tasks", "48", "396", "108"]
        assert a[-1].endswith("%") and int(a[-1][:-1]) > 30
    _, out, _ = modjax("data", "stat", f"--tasks={tasks_file}", f"--model={checkpoint}", "--length=8", "--split=test")
    assert [line.split()[6] for line in out.splitlines()[1:-1]] == ["0", "0", "6", "0"]


def test_write_writes_a_task_folder_once(modjax, tasks_file, tmp_path):
    command = ("data", "write", f"--tasks={tasks_file}", f"--to={tmp_path / 'out'}")
    assert modjax(*command) == (0, f"{tmp_path / 'out'}: 4 tasks\n", "")
    assert dict(data.load(tmp_path / "out")) == dict(data.load(tasks_file))
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert modjax(*command) == (0, f"{tmp_path / 'out'}: complete\n", "")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == made
    code, _, err = modjax(*command, "--only=a")
    assert code == 2 and err == f"modjax: {tmp_path / 'out'}: is not empty; expected --to=FOLDER, new or empty\n"
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks=open48"], "found no action; expected one of ls, stat, write, fetch, as in modjax data ls --tasks="),
        (["lst", "--tasks=open48"], "found 'lst'; expected one of ls, stat, write, fetch"),
        (["ls"], "--tasks is missing; expected it or --config, as in modjax data ls --tasks=open48"),
        (["ls", "stat", "--tasks=open48"], "unexpected argument 'stat'"),
        (["ls", "--tasks={'files': 'gone.csv'}"], "files: 'gone.csv' names no file"),
        (["ls", "--tasks={'files'"], "no tasks at \"{'files'\""),
        (["ls", "--tasks=owner/name"], "owner/name: cannot be loaded"),
        (["stat", "--tasks=open48", "--split=dev"], "--split='dev': expected one of train, validation, test"),
        (["stat", "--tasks=open48", "--model=nowhere/at/all"], "nowhere/at/all: neither a directory nor a model id"),
        (["write", "--tasks=open48"], "--to is missing; example: modjax data write"),
        (["fetch", "--tasks=open48"], "open48: is no data set of the hub; expected its id as owner/name"),
        (["fetch", "--tasks=owner/name"], "owner/name: cannot be loaded (Couldn't reach 'owner/name' on the Hub"),
        (["fetch", "--tasks=flan"], "chiayewken/flan-v2: cannot be loaded"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(modjax, offline, arguments, message):
    code, out, err = modjax("data", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"modjax: {message}") and err.count("\n") == 1


def test_help_lists_the_actions(modjax):
    code, out, _ = modjax("data", "--help")
    assert code == 0 and modjax("data", "stat", "--help")[1] == out
    assert all(f"\n  {action} " in out for action in ("ls", "stat", "write", "fetch")) and "--action" not in out


def test_a_described_table_is_trained_on(modjax, config_file, described, tmp_path):
    arguments = (f"--config={config_file}", "--config.train.steps=2", f"--workdir={tmp_path / 'work'}")
    code, _, err = modjax("train", *arguments, f"--config.tasks={described}", "--config.only=('a','b')")
    assert code == 0, err
    assert json.loads((tmp_path / "work" / "config.json").read_text())["tasks"] == described
    assert (tmp_path / "work" / "library" / "library.json").is_file()
    code, out, _ = modjax("train", *arguments, f"--config.tasks={described}", "--config.only=('a','b')")
    assert code == 0 and "complete" in out
