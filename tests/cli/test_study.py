"""`modjax study` on a tiny model: what it writes, what may be added to it, and what may not change."""

import json

import pytest

STUDY = {
    "seeds": (0,),
    "methods": {"base": {"library": ""}, "shared": {"library": "shared"}},
    "held_out": (),
    "development": (),
    "tuning": 2,
    "clustering": 0.4,
    "rows": {},
    "adapted": {},
    "pairs": 0,
    "benchmarks": {"names": (), "data": "", "examples": 2, "execute": False},
}


@pytest.fixture
def command(config_file, tmp_path):
    config_file.write_text(config_file.read_text().replace("'groups':", f"'study': {STUDY}, 'adapt': {{}}, 'groups':"))
    return "study", f"--config={config_file}", f"--workdir={tmp_path / 'study'}", f"--report={tmp_path / 'report'}"


def test_seeds_and_benchmarks_may_be_added_but_training_stays_the_same(modjax, command, tmp_path):
    code, out, err = modjax(*command)
    assert code == 0 and "Zero-shot" not in out, err
    trained = tmp_path / "study" / "seed-0" / "shared" / "library" / "library.json"
    before = trained.stat().st_mtime_ns
    rows = [{"goal": f"what is {word}", "sol1": "yes", "sol2": "no no", "label": 0} for word in ("red", "cat", "dog")]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = "--config.study.benchmarks.names=('piqa',)", f"--config.study.benchmarks.data={tmp_path}"
    code, out, err = modjax(*command, *added, "--config.study.seeds=(0, 1)")
    assert code == 0 and "Zero-shot" in out, err
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [list(method["benchmarks"]) for method in found["methods"]] == [["piqa"], ["piqa"]]
    assert list(found["chosen"]) == ["0", "1"] and trained.stat().st_mtime_ns == before
    code, _, err = modjax(*command, "--config.train.steps=5")
    assert code == 2 and "config.train.steps = 4; found 5" in err
