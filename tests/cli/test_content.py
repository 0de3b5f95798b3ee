"""A working folder is tied to what its config points to: each verb, and other content under the same paths."""

import json
import shutil

import pytest

from modjax.cli import session
from modjax.errors import InputError
from modjax.studies.stages import Stages

ADAPT = {
    "method": "mu", "examples": 3, "validation": 2, "retrieve": "none", "experts": 2, "heads": 1, "weights_rate": 1.0,
    "router": "", "budget": 4, "cat_rate": 1e-2,
}  # fmt: skip
BOARD = {
    "rows": {}, "train": ("mbc",), "models": {}, "libraries": {}, "methods": {"base": {"library": ""}}, "analyse": (),
    "shown": (),
}  # fmt: skip
MORE = {"adapt": ADAPT, "leaderboard": BOARD, "transfer": {"pairs": 3, "bins": 2, "seed": 0}}

# What each verb reads, as the first key that differs when it is another one.
READ = {
    "train": {"tasks": "content.tasks.a", "model": "content.model.weights"},
    "cluster": {"tasks": "content.tasks.a", "library": "content.library"},
    "cluster by embedding": {"model": "content.model.weights"},
    "merge": {"library": "content.libraries.library"},
    "route": {"tasks": "content.tasks.a", "model": "content.model.weights", "library": "content.libraries.library"},
    "evaluate": {"tasks": "content.tasks.a", "model": "content.model.weights", "library": "content.libraries.library"},
    "adapt": {"tasks": "content.tasks.a", "model": "content.model.weights", "library": "content.libraries.library"},
    "leaderboard": {"tasks": "libraries.tasks.a", "model": "libraries.model.weights", "library": "libraries.private"},
    "transfer": {"tasks": "inputs.tasks.a", "model": "inputs.model.weights", "library": "inputs.library"},
    "demo": {"tasks": "inputs.tasks.a", "model": "inputs.model.weights"},
}


@pytest.fixture
def content(tmp_path, checkpoint, tasks_file, library):
    """{key of the config: its path}, copies that a test may change."""
    folder = tmp_path / "content"
    shutil.copytree(library, folder / "library")
    shutil.copytree(checkpoint, folder / "model")
    shutil.copy(tasks_file, folder / "tasks.jsonl")
    return {"library": folder / "library", "model": folder / "model", "tasks": folder / "tasks.jsonl"}


def other_tasks(path):
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"target": "no"}), *rest]) + "\n")


def other_model(path):
    from safetensors.numpy import load_file, save_file

    file = path / "model.safetensors"
    save_file({name: 1.01 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})


@pytest.fixture
def other_library(random_library):
    def write(path):
        random_library({"attn.q": (16, 16), "mlp.down": (24, 16)}, names=["a", "b", "c"], seed=1).save(path)

    return write


@pytest.fixture
def command(modjax, config_file, content, tmp_path):
    """command(verb): (exit code, stdout, stderr), with the content in a config of all verbs."""
    path = tmp_path / "all.py"

    def run(verb):
        name, _, method = verb.partition(" by ")
        more = MORE | ({"method": {"merge": {"name": "uniform"}}} if name == "merge" else {})
        path.write_text(
            "import runpy\n"
            "def get_config():\n"
            f"    config = runpy.run_path({str(config_file)!r})['get_config']()\n"
            f"    config.update({more!r})\n"
            "    config.train.alpha = 2.0\n"  # as in the random library
            f"    {f'config.cluster.method = {method!r}' if method else ''}\n"
            "    return config\n"
        )
        given = [f"--config.{key}={value}" for key, value in content.items()]
        return modjax(name, f"--config={path}", f"--workdir={tmp_path / 'job'}", *given)

    return run


@pytest.fixture
def stops(monkeypatch):
    """From here on each verb stops when its folder is bound to the content, before it computes anything."""

    def stopping(bind):
        def bound(*given):
            bind(*given)
            raise InputError("bound")

        return bound

    monkeypatch.setattr(session, "bind", stopping(session.bind))
    monkeypatch.setattr(Stages, "claim", stopping(Stages.claim))


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("verb", READ)
def test_other_content_under_the_same_path_is_refused(verb, command, content, other_library, stops, tmp_path):
    change = {"tasks": other_tasks, "model": other_model, "library": other_library}
    for _ in range(2):
        assert command(verb) == (2, "", "modjax: bound\n")
    before = files(tmp_path / "job")
    for key, words in READ[verb].items():
        original = shutil.copytree(content[key].parent, tmp_path / "original", dirs_exist_ok=True)
        change[key](content[key])
        code, out, err = command(verb)
        assert (code, out) == (2, "") and f"this folder was made with {words} = '" in err, err
        assert err.endswith(", expected the same or a new folder\n") and err.count("\n") == 1
        shutil.rmtree(content[key].parent)
        shutil.copytree(original, content[key].parent)
    assert files(tmp_path / "job") == before
    assert command(verb) == (2, "", "modjax: bound\n")


def test_a_finished_library_of_other_tasks_is_refused_and_kept(command, content, tmp_path):
    code, _, err = command("train")
    assert code == 0, err
    before = files(tmp_path / "job")
    text = content["tasks"].read_text()
    other_tasks(content["tasks"])
    code, _, err = command("train")
    assert code == 2 and "content.json: this folder was made with content.tasks.a = '" in err
    content["tasks"].write_text(text)
    code, out, err = command("train")
    assert code == 0 and "is complete; nothing to do" in out
    assert files(tmp_path / "job") == before


def test_a_folder_that_does_not_know_its_content_is_refused(command, tmp_path):
    (tmp_path / "job" / "library").mkdir(parents=True)
    code, _, err = command("train")
    assert code == 2 and "config.json: is missing, so it is not known what " in err
