"""`modjax adapt` on a tiny model: every method writes a library and scores, and resumes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from modjax.experts.library import Library

ADAPT = {
    "method": "poly", "examples": 3, "validation": 2, "retrieve": "none", "experts": 2, "heads": 2,
    "weights_rate": 100.0, "router": "", "budget": 4, "cat_rate": 1e-2,
}  # fmt: skip


@pytest.fixture
def adapt_config(config_file, tmp_path):
    path = tmp_path / "adapt.py"
    path.write_text(
        "import runpy\n"
        "def get_config():\n"
        f"    config = runpy.run_path({str(config_file)!r})['get_config']()\n"
        f"    config.adapt = {ADAPT!r}\n"
        "    config.train.update(steps=2, save_every=1, dropout=0.0)\n"
        "    return config\n"
    )
    return path


@pytest.fixture
def saved(tmp_path, checkpoint, random_library):
    """Three random experts of the tiny checkpoint."""
    import modjax as package

    sites = package.load(checkpoint).config.sites
    path = tmp_path / "experts"
    random_library({site: sites[site] for site in ("attn.q", "attn.o")}).save(path)
    return path


@pytest.fixture
def adapt(modjax, adapt_config, saved, tmp_path):
    """adapt(method, retrieve, *arguments): (exit code, stdout, stderr, the working folder)."""

    def run(method, retrieve="none", *arguments, library=saved):
        folder = tmp_path / f"{method}-{retrieve}"
        return *modjax(
            "adapt", f"--config={adapt_config}", f"--workdir={folder}", f"--config.library={library}",
            f"--config.adapt.method={method}", f"--config.adapt.retrieve={retrieve}", *arguments,
        ), folder  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("method", "retrieve"),
    [("mu", "random"), ("poly_z", "svd"), ("mhr", "none"), ("lorahub", "lora"), ("cat", "none")],
)
def test_every_method_adapts_to_the_held_out_task(adapt, method, retrieve):
    code, out, err, folder = adapt(method, retrieve)
    assert code == 0, err
    library = Library.load(folder / "library")
    assert library.names == ("d",) and library.tasks == (("d",),)
    before, after = (json.loads((folder / f"{name}.json").read_text())["tasks"]["d"] for name in ("before", "after"))
    assert before["examples"] == after["examples"] == 2
    assert "mean" in out.splitlines()[-1] and f"{before['loss']:.3f} -> " in out
    if retrieve in ("lora", "svd"):
        assert [Library.load(own).names for own in folder.glob("retrieval-3-2-*/library")] == [("d",)]
        assert len(json.loads((folder / "retrieved.json").read_text())["d"]) == 2


def test_finished_work_is_not_repeated(adapt):
    code, out, err, folder = adapt("poly", "random")
    assert code == 0, err
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    (folder / "after.json").unlink()
    code, again, _, _ = adapt("poly", "random")
    assert code == 0 and again.splitlines()[-2:] == out.splitlines()[-2:]
    changed = {path.name for path, time in written.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"after.json", "stages.json"}
    library = Library.load(folder / "library")
    lora = library.loras["attn.q"]
    dataclasses.replace(library, loras=library.loras | {"attn.q": lora._replace(b=-lora.b)}).save(folder / "library")
    code, _, err, _ = adapt("poly", "random")
    assert code == 2 and "trained.json: this folder was made with trained.library = '" in err


def test_shared_starts_from_one_expert(adapt, saved, tmp_path):
    library = Library.load(saved)
    code, _, err, _ = adapt("shared")
    assert code == 2 and "adaptation by 'shared' starts from one expert; the library has 3" in err
    library["expert1"].save(tmp_path / "one")
    code, _, err, folder = adapt("shared", "none", "--config.train.learning_rate=0.0", library=tmp_path / "one")
    assert code == 2 and "this folder was made with config.library" in err
    shutil.rmtree(folder)
    code, _, err, folder = adapt("shared", "none", "--config.train.learning_rate=0.0", library=tmp_path / "one")
    assert code == 0, err
    np.testing.assert_array_equal(
        Library.load(folder / "library").loras["attn.q"].a, library["expert1"].loras["attn.q"].a
    )


@pytest.mark.parametrize(
    ("method", "retrieve", "words"),
    [
        ("polly", "none", "config.adapt.method: unknown method 'polly'; did you mean 'poly'?"),
        ("poly", "best", "config.adapt.retrieve = 'best'"),
    ]
    + [("lora", "svd", "the method 'lora' retrieves no experts")],
)
def test_faulty_options_are_named(adapt, method, retrieve, words):
    code, _, err, folder = adapt(method, retrieve)
    assert code == 2 and words in err
    assert not folder.exists()
