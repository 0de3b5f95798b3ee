"""`modjax plan`: what it prints and writes, and what it refuses."""

import json

import pytest


@pytest.fixture
def plan(modjax, config_file):
    def run(*given):
        return modjax("plan", f"--config={config_file}", "--topology=cpu", "--config.train.micro=1", *given)

    return run


def test_plan_prints_a_table_and_writes_it(plan, tmp_path):
    code, out, err = plan("--config.mesh.fsdp=1", f"--workdir={tmp_path / 'plan'}")
    assert code == 0, err
    first, *lines = out.splitlines()
    assert first.endswith(", 3 experts, cpu, mesh expert=8 fsdp=1 tensor=1")  # those of the tasks in training
    assert any(line.startswith("fits           yes, ") for line in lines)
    assert "5 members, and 0 rows of each step, are idle, to fill the mesh" in out
    found = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert (found["experts"], found["idle"], found["fits"]) == (3, {"members": 5, "rows": 0}, True)
    assert max(map(len, lines)) <= 160


PLANNED = {
    "model": "tiny",
    "topology": "v5e:2x4",
    "slices": 2,
    "mesh": {"expert": 4, "fsdp": 2, "tensor": 1},
    **{"experts": 8, "batch": 4, "length": 32, "targets": 5, "micro": 2, "remat": False, "steps": 60},
    "fits": False,
    "reason": "too large",
    "memory": {"device": 2**34, "arguments": {"base": 2**33}},
    **{"slots": 4, "waves": 2},
}
FITTING = {
    **{"fits": True, "reason": None, "remat": True, "notes": ["a note"]},
    "memory": {"device": 2**34, "arguments": {"base": 2**32}, "temporaries": 2**31, "total": 2**32 + 2**31},
    "buffers": [
        {"size": 2**30, "number": 1, "shape": "f32[2]", "origin": "kept for backward: Decoder/_scan"},
        {"size": 2**29, "number": 3, "shape": "f32[1]", "origin": "forward: Block/attention"},
        {"size": 2**20, "number": 3, "shape": "f32[1]", "origin": "forward: Block"},
    ],
    "wire": {"fsdp": 12_300_000_000},
    "network": {"expert": 2_000_000_000},
    "experts_that_fit": 1200,
    "step": {"by_cycles": 2.5, "compute": 1.25, "memory": 0.5, "wire": 0.25, "network": 2, "seconds": 2.5},
    **{"tokens_per_second": 409.6, "share_of_peak": 0.33, "hours": 0.0417, "chip_hours": 1234.4},
}


def test_flags_become_arguments_and_what_would_fit_is_printed(plan, monkeypatch):
    asked = []
    found = PLANNED | {"alternatives": [FITTING]}
    monkeypatch.setattr("modjax.cli.plan.plan", lambda *given, **named: asked.append((given, named)) or found)
    code, out, err = plan("--experts=8", "--slices=2", "--targets=5", "--config.tasks=nowhere")
    assert code == 0, err
    (_, experts), named = asked[0]
    assert experts == 8 and named["mesh"] == {"expert": -1, "fsdp": 1, "tensor": 1} and named["micro"] == 1
    assert [named[name] for name in ("topology", "slices", "targets", "quantize")] == ["cpu", 2, 5, None]
    before, _, after = out.partition("\n\nthis would fit:\n")
    assert before.splitlines() == [
        "tiny, 8 experts, 2 x v5e:2x4, mesh expert=4 fsdp=2 tensor=1",
        "step           4 rows x 32 tokens per expert, 5 targets a row; 2 rows at a time per device",
        "fits           no in 16.00 GiB a device: too large",
        "  base         8.00 GiB",
    ]
    assert after.splitlines()[1:] == [
        "step           4 rows x 32 tokens per expert, 5 targets a row; 2 rows at a time per device, recomputed",
        "fits           yes, 6.00 of 16.00 GiB a device",
        "  base         4.00 GiB",
        "  temporaries  2.00 GiB",
        "  largest      1 x 1.00 GiB f32[2], kept for backward: Decoder/_scan",
        "               3 x 0.50 GiB f32[1], forward: Block/attention",
        "wire           sent by a device in a step: fsdp 12.3 GB, expert 2 GB to other slices",
        "seconds        2.5 a step: by cycles 2.5; at least for compute 1.25, memory 0.5, wire 0.25, network 2",
        "speed          410 tokens/s, 33% of the peak",
        "waves          2 waves of 4 experts; about 1,200 would fit at a time",
        "job            60 steps: 0.0417 hours, 1,234 chip-hours",
        "note           a note",
    ]


def test_a_search_prints_its_candidates(plan, monkeypatch, tmp_path):
    one = {"mesh": {"expert": 8, "fsdp": 1, "tensor": 1}, "slots": 8, "micro": 4, "remat": False, "least_chip_hours": 5}
    measured = [one | {"chip_hours": 7.5, "fits": True}, one | {"remat": True, "fits": False}, one | {"mesh": {}}]
    found = PLANNED | FITTING | {"candidates": measured + 12 * [one]}
    asked = []
    monkeypatch.setattr("modjax.cli.plan.search", lambda *given, **named: asked.append((given, named)) or found)
    code, out, err = plan("--search", "--experts=8", f"--workdir={tmp_path / 'searched'}")
    assert code == 0, err
    (_, experts), named = asked[0]
    assert experts == 8 and named["workdir"] == tmp_path / "searched" and "mesh" not in named
    assert out.split("\n\n")[1].splitlines()[:4] == [
        "candidates     mesh, experts at a time, rows at a time: chip-hours, at least by formulas",
        "               8x1x1, 8 experts, 4 rows: 8, at least 5",
        "               8x1x1, 8 experts, 4 rows, recomputed: does not fit, at least 5",
        "               one device, 8 experts, 4 rows: at least 5",
    ]
    assert out.splitlines()[-1] == "               and 3 more that fit by formulas"


def test_a_config_says_what_its_plan_is_of(modjax, config_file, monkeypatch):
    asked = []
    monkeypatch.setattr("modjax.cli.plan.plan", lambda *given, **named: asked.append((given, named)) or PLANNED)
    code, out, err = modjax("plan", "--config=configs/recipes.py:smollm2_laptop", "--targets=7")
    assert code == 0, err
    (_, experts), named = asked[0]
    assert (experts, named["topology"], named["targets"], named["micro"]) == (256, "laptop", 7, 8)
    code, out, err = modjax("plan", f"--config={config_file}")
    assert (code, out) == (2, "") and "--topology is missing" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--config.recipe=full"], "config.recipe='full': expected 'lora'"),
        (["--topology=v9:2x2"], "topology='v9:2x2': expected cpu, laptop"),
        (["--slices=2"], "slices=2: expected a whole number, at least 1 and at most 1"),
        (["--experts=some"], "experts"),
        (["--experts=-1"], "experts=-1"),
    ],
)
def test_what_cannot_be_planned(plan, given, message):
    code, out, err = plan(*given)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
