"""The leaderboard on a tiny model: the measures of each line, resuming, and lines that fail."""

import json
import pathlib

import pytest

NEUTRAL = str(pathlib.Path(__file__).parents[2] / "configs" / "neutral.txt")
METHODS = {
    "base": {"library": ""},
    "oracle": {"router": {"name": "oracle"}},
    "arrow": {"router": {"name": "arrow", "top_k": 2}, "note": "top 2"},
    "centroid": {"router": {"name": "centroid", "examples": 2}},
    "ties": {"merge": {"name": "ties"}},
    "known_less_arrow": {"subtract": {"library": "general"}, "router": {"name": "arrow"}},
    "saved": {"router": "../router.safetensors"},
    "other": {"model": "full"},
    "mu": {"adapt": {"method": "mu", "retrieve": "lora", "experts": 2}},
    "neutral": {"router": {"name": "seqr"}, "calibrate": NEUTRAL},
    "absent": {"library": "mbc", "router": {"name": "arrow"}},
    "missing": {"model": "none"},
}
ADAPT = {"method": "poly", "examples": 3, "validation": 2, "retrieve": "none", "experts": 5}
FAULTY = {
    "unready": {"note": "three experts and no router"},
    "odd": {"merge": {"name": "ties", "density": 3}},
    "plain": {"router": {"name": "arrow"}, "calibrate": 2},
    "unknown": {"router": {"name": "calibrate"}},
    "new": {"merge": {"name": "svd", "ranks": 2}},
    "typed": {"router": {"name": "arrow", "top_k": "4"}},
    "unread": {"router": {"name": "seqr"}, "calibrate": "no-such-file.txt"},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory, checkpoint):
    """Random experts for the tiny checkpoint, one for each of three tasks."""
    import numpy as np

    from modjax.experts.library import Library
    from modjax.routing import spectr

    rng = np.random.default_rng(0)
    factors = (rng.normal(size=(2, 3, 2, 16)) / 4 for _ in range(2))
    path = tmp_path_factory.mktemp("experts") / "library"
    experts = Library.from_arrays({"attn.q": tuple(factors)}, names=["a", "b", "c"])
    experts.save(path)
    spectr(experts).save(path.parent / "router.safetensors")
    return path


@pytest.fixture
def board(config_file, checkpoint, library, tmp_path, modjax):
    """Runs the verb with the given methods; gives (exit code, stdout, stderr), and what it wrote if it did."""

    def run(methods=METHODS, given=True, *arguments, analyse=("arrow",), train=()):
        config = tmp_path / "board.py"
        options = {"libraries": {"mbc": "", "general": str(library)}, "models": {"full": str(checkpoint), "none": ""},
                   "train": train, "rows": {"shared": 3}, "methods": {}, "analyse": analyse,
                   "shown": ("a", "elsewhere")}  # fmt: skip
        config.write_text(
            "import tiny_config\n"
            "from ml_collections import ConfigDict\n"
            "def get_config():\n"
            "    config = tiny_config.get_config()\n"
            f"    config.leaderboard, config.adapt = {options!r}, {ADAPT!r}\n"
            f"    config.leaderboard.methods = ConfigDict({methods!r}, allow_dotted_keys=True)\n"
            "    config.train.update(steps=2, save_every=1, dropout=0.0)\n"
            "    return config\n"
        )
        flags = [f"--config={config}", f"--workdir={tmp_path / 'board'}", f"--report={tmp_path / 'report'}"]
        found = modjax("leaderboard", *flags, *([f"--config.library={library}"] if given else []), *arguments)
        written = tmp_path / "board" / "leaderboard.json"
        return *found, json.loads(written.read_text()) if written.exists() else None

    return run


def test_every_line_is_measured_and_compared(board, tmp_path):
    code, out, err, found = board()
    assert code == 0, err
    methods = {method["name"]: method for method in found["methods"]}
    assert set(methods) == set(METHODS) - {"absent", "missing"}  # whose library, and model, have no folder
    assert methods["oracle"]["held_out"] == {} and methods["mu"]["in_distribution"] == {}
    assert methods["other"]["in_distribution"] == methods["base"]["in_distribution"]  # the same checkpoint
    for method in methods.values():
        own = method["in_distribution"] or method["held_out"]
        low, high = own["intervals"]["loss"]
        assert low <= own["loss"] <= high
        assert method["seconds"]["token"] > 0 and method["seconds"]["evaluate"] > 0 <= method["seconds"]["build"]
        assert (method["bytes"]["experts"] > 0) == (method["name"] not in ("base", "other"))
    losses = [method["in_distribution"].get("loss", float("inf")) for method in found["methods"]]
    assert losses == sorted(losses)
    pairs = {(pair["part"], pair["metric"]): pair["names"] for pair in found["paired"]}
    assert len(pairs) == 6
    assert set(pairs["in_distribution", "loss"]) == set(methods) - {"mu"}
    assert set(pairs["held_out", "loss"]) == set(methods) - {"oracle"}
    (analysis,) = found["analysis"]
    assert analysis["name"] == "arrow" and analysis["experts"] == ["a", "b", "c"]
    assert methods["arrow"]["routing_accuracy"] == analysis["accuracy"]
    assert [view["library"] for view in found["routing"]] == ["arrow"]
    assert "arrow" in out and "±" in out and max(map(len, out.splitlines()[:-1])) <= 100
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(f'<section id="{section}">' in page for section in ("comparison", "paired", "analysis", "routing"))


def test_only_lines_that_changed_are_measured_again(board, tmp_path):
    few = {name: METHODS[name] for name in ("base", "arrow")}
    code, _, err, first = board(few)
    assert code == 0, err
    files = {name: tmp_path / "board" / f"method-{name}.json" for name in ("base", "arrow", "ties")}
    written = {name: path.stat().st_mtime_ns for name, path in files.items() if path.exists()}
    changed = {"base": few["base"], "arrow": {"router": {"name": "arrow", "top_k": 1}}, "ties": METHODS["ties"]}
    code, out, err, second = board(changed)
    assert code == 0, err
    assert files["base"].stat().st_mtime_ns == written["base"] and "method base ..." not in out
    assert files["arrow"].stat().st_mtime_ns > written["arrow"]
    losses = [
        {method["name"]: method["in_distribution"]["loss"] for method in found["methods"]} for found in (first, second)
    ]
    assert losses[0]["base"] == losses[1]["base"] and set(losses[1]) == {"base", "arrow", "ties"}


def test_libraries_are_trained_once_for_lines_that_name_them(board, tmp_path):
    line = {"shared": {"library": "shared", "router": {"name": "uniform"}}}
    code, out, err, first = board(line, train=("shared",))
    assert code == 0, err
    assert "train shared ..." in out and first["methods"][0]["in_distribution"]["examples"] == 6
    code, out, err, again = board(line, train=("shared",))
    assert code == 0, err
    assert "train shared ..." not in out and again["methods"] == first["methods"]
    code, _, err, _ = board(line, True, "--config.leaderboard.rows.shared=2", train=("shared",))
    assert code == 2 and "config.leaderboard.rows.shared" in err


def test_a_router_is_analysed_when_it_is_added_to_those(board):
    few = {name: METHODS[name] for name in ("base", "arrow", "saved")}
    (_, _, _, first), (code, out, err, second) = board(few), board(few, analyse=("arrow", "saved"))
    assert code == 0, err
    assert "method saved ..." in out and "method arrow ..." not in out
    looked = [[one["name"] for one in found["analysis"]] for found in (first, second)]
    assert looked == [["arrow"], ["arrow", "saved"]] or looked == [["arrow"], ["saved", "arrow"]]


def test_adaptation_resumes_and_starts_again_if_its_line_changes(board, tmp_path):
    line = METHODS["mu"]
    code, out, err, first = board({"mu": line})
    assert code == 0, err
    (kept,) = (tmp_path / "board").glob("mu-*")
    assert (kept / "library" / "library.json").exists() and "train retrieval-3-2-" in out
    times = [path.stat().st_mtime_ns for path in sorted((kept / "library").rglob("*"))]
    (tmp_path / "board" / "method-mu.json").unlink()
    code, out, err, again = board({"mu": line})
    assert code == 0, err
    assert [path.stat().st_mtime_ns for path in sorted((kept / "library").rglob("*"))] == times
    assert [one["methods"][0]["held_out"] for one in (first, again)] == [first["methods"][0]["held_out"]] * 2
    code, out, err, _ = board({"mu": {"adapt": {"method": "mu", "retrieve": "random", "experts": 1}}})
    assert code == 0, err
    assert len(list((tmp_path / "board").glob("mu-*"))) == 2 and "retrieval" not in out


def test_methods_that_fail_are_named_and_the_others_go_on(board, tmp_path):
    code, out, err, found = board({"base": METHODS["base"], **FAULTY})
    assert code == 0, err
    errors = {method["name"]: method["error"] for method in found["methods"] if "error" in method}
    assert "needs a router" in errors["unready"] and "density=3" in errors["odd"]
    assert "merge svd: unknown option 'ranks'; did you mean 'rank'?" in errors["new"]
    assert errors["typed"] == "router arrow: top_k = '4'; expected int"
    assert "no-such-file.txt" in errors["unread"]
    assert "unready failed: a library of 3 experts needs a router" in out
    assert "router cannot be calibrated" in errors["plain"]
    assert "unknown router 'calibrate'; expected one of arrow" in errors["unknown"]
    assert not (tmp_path / "board" / "method-odd.json").exists()  # so that it is tried again
    assert "density=3" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"odd": {"routers": {"name": "arrow"}}}, "methods.odd: unknown part 'routers'; did you mean 'router'?"),
        ({"odd": {"library": "elsewhere"}}, "methods.odd: no library 'elsewhere'"),
        ({"odd": {"merge": {"name": "tiles"}}}, "methods.odd.merge.name: unknown merge 'tiles'; did you mean 'ties'?"),
        (
            {"odd": {"merge": {"name": "genknowsub"}}},
            "methods.odd.merge.name: unknown merge 'genknowsub'; expected one of",
        ),
        ({"odd": {"model": "best"}}, "methods.odd: 'model' can only be combined with 'note'; known models: full, none"),
        (
            {"odd": {"model": "full", "merge": {"name": "ties"}}},
            "methods.odd: 'model' can only be combined with 'note'",
        ),
        (
            {"odd": {"adapt": {"method": "polly"}}},
            "methods.odd.adapt.method: unknown method 'polly'; did you mean 'poly'?",
        ),
        ({"odd": {"merge": "ties"}}, "methods.odd.merge = 'ties'; expected options"),
        ({"odd": {"router": {"top_k": 2}}}, "methods.odd.router = {'top_k': 2}; expected a name among its options"),
        ({"odd": {"calibrate": True}}, "methods.odd.calibrate = True; expected a text file, or a number of prompts"),
        (
            {"odd": {"adapt": {"way": "poly"}}},
            "methods.odd.adapt: unknown option 'way'; expected one of",
        ),
    ],
)
def test_faulty_lines_are_named_before_anything_is_run(board, methods, message):
    code, _, err, _ = board(methods)
    assert code == 2 and message in err


def test_a_library_is_needed(board):
    code, _, err, _ = board(given=False)
    assert code == 2 and "config.library is empty" in err


def test_methods_of_any_name(board, tmp_path):
    names = ["v1.0", "a/b", "a b", "items", "..", "任务"]
    code, out, err, found = board({name: {"library": ""} for name in names}, analyse=())
    assert code == 0, err
    assert sorted(method["name"] for method in found["methods"]) == sorted(names)
    assert "任务" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8") and "v1.0" in out
    assert board({" ": {"library": ""}}, analyse=())[0] == 2
