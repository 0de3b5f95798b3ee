"""Plans of a tiny job: on this machine from end to end, and on a chip with a recorded program."""

import importlib
import json

import jax
import pytest

from modjax.errors import InputError
from modjax.parallel import aot
from modjax.parallel.buffers import Buffer
from modjax.parallel.chips import Chip
from modjax.parallel.kernels import Kernel
from modjax.studies.plan import plan
from modjax.train import memory
from modjax.train.job import Job

plans = importlib.import_module("modjax.studies.plan")  # in the package, the name is that of the function
outcomes = importlib.import_module("modjax.studies.outcome")
SETTINGS = {"batch": 4, "length": 32, "rank": 2, "steps": 360, "sites": ("attn.q", "mlp.down"), "loss_chunk": 8}
GIB = 2**30
CHIP = Chip(memory=GIB, flops=1e12, bandwidth=1e12, wire=1e6, clock=1e6)
RECORDED = """
%body (p: f32[8]) -> f32[8] {
  %sum = f32[1000]{0} all-reduce(%x), channel_id=1, replica_groups=[4,2]<=[8], to_apply=%add
  %own = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"200000"}
  %attention_forward.1 = (bf16[2,4,8,32]{3,2,1,0}, f32[2,4,1,32]{3,2,1,0}) custom-call(%x), custom_call_target="tpu_custom_call"
}

%fused (p: f32[8]) -> f32[8] {
  ROOT %inner = f32[8]{0} add(%p.1, %p.1)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = f32[8] while(%t), condition=%fused, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""  # noqa: E501


@pytest.fixture
def folder(tiny_json, tmp_path):
    """A folder with the config.json of a tiny model, and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps(tiny_json("llama")))
    return str(tmp_path)


def test_on_this_machine(folder):
    found = plan(folder, 8, mesh={"expert": 4, "fsdp": 2}, micro=2, **SETTINGS)
    assert found["fits"] and found["reason"] is None and "alternatives" not in found
    assert found["mesh"] == {"expert": 4, "fsdp": 2, "tensor": 1} and (found["idle"], found["targets"]) == (
        {"members": 0, "rows": 0},
        8,
    )
    used = found["memory"]
    arguments = used["arguments"]
    # A quarter of the experts is on a device: A and B twice, as good arrays too, and two moments with a count of steps;
    # and their scales.
    numbers = 3 * 2 * 2 * ((32 + 32) + (48 + 32))
    assert arguments["adapters"] == 2 * 4 * numbers + 2 * 4 * 3 * 2
    assert arguments["optimizer"] == 2 * 4 * numbers + 2 * 4
    assert used["total"] == sum(arguments.values()) + used["temporaries"] + used["results"] + used["code"]
    assert used["temporaries"] > 0 and found["wire"]["fsdp"] > 0 and "step" not in found
    sizes = [one["size"] for one in found["buffers"]]
    assert sizes == sorted(sizes, reverse=True) and 0 < sizes[0] <= used["temporaries"]
    assert any(one["origin"].startswith(("forward: ", "backward: ", "kept for backward: ")) for one in found["buffers"])
    json.dumps(found)


def test_idle_experts_and_the_rows_at_a_time_are_told(folder, monkeypatch):
    monkeypatch.setattr(aot, "compiled", lambda program, target: pytest.fail("compiled"))
    monkeypatch.setattr(outcomes, "room", lambda target: 0)
    monkeypatch.setattr(plans, "room", lambda target: 0)
    found = plan(folder, 7, mesh={"expert": 4, "fsdp": 2}, **SETTINGS)
    assert (found["fits"], found["idle"], found["alternatives"]) == (False, {"members": 1, "rows": 0}, [])
    assert "arguments of a step alone" in found["reason"]


@pytest.fixture
def chip(monkeypatch):
    """chip(needs): makes the eight devices two each of four chips; needs(job) is the temporary memory of its program.

    None stands for more than the compiler accepts. Nothing is compiled or traced.
    """

    class Memory:
        argument_size_in_bytes = output_size_in_bytes = alias_size_in_bytes = generated_code_size_in_bytes = 0

    def make(needs=lambda job: 100, chip=CHIP):
        def compiled(job, target):
            memory = Memory()
            memory.temp_size_in_bytes = needs(job)
            if memory.temp_size_in_bytes is None:
                raise aot.OutOfMemory("Ran out of memory")
            buffers = [Buffer(8, 1, "f32[2]", "forward: Linear")]
            return aot.Compiled(RECORDED, memory, {"attention_forward": Kernel(5, 4, 1, 3)}, buffers)

        monkeypatch.setattr(Job, "traced", lambda self: self)
        monkeypatch.setattr(aot, "topology", lambda name, slices: aot.Topology(name, jax.devices(), chip, 4))
        monkeypatch.setattr(aot, "compiled", compiled)

    return make


def test_time_and_cost_on_a_chip(folder, chip):
    chip()
    found = plan(folder, 8, "chips", 1, {"expert": 4, "fsdp": 2}, micro=2, **SETTINGS)
    cycles = 3 * (200_000 + 2 * 4 * (5 + 4 + 3))
    step = found["step"]
    assert (step["cycles"], step["by_cycles"]) == (cycles, cycles / 1e6)
    assert found["wire"] == {"fsdp": 3 * 4000} and step["wire"] == 3 * 4000 / 1e6
    assert step["seconds"] == step["by_cycles"] > step["wire"] > step["memory"] > 0
    assert found["tokens_per_second"] == pytest.approx(8 * 4 * 32 / step["seconds"])
    weights = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    rows, pairs = 8 * 4, 32 * 33 // 2
    operations = rows * (4 * weights * 32 + 4 * 32 * 61 * 8 + 12 * 3 * 32 * pairs)
    assert step["compute"] == pytest.approx(operations / 8 / 1e12)
    assert found["share_of_peak"] == pytest.approx(operations / 8 / 1e12 / step["seconds"])
    assert found["hours"] == pytest.approx(step["seconds"] * 361 / 3600) and found["chip_hours"] == 4 * found["hours"]
    assert found["dtype"] == "bfloat16" and found["notes"] == []
    again = plan(folder, 8, "chips", 1, {"expert": 4, "fsdp": 2}, micro=2, remat=True, **SETTINGS)["step"]
    assert again["compute"] > 1.3 * step["compute"] and again["memory"] > step["memory"]


def test_kernels_whose_cycles_are_not_known_are_told(folder, chip, monkeypatch):
    chip()
    monkeypatch.setattr(aot, "compiled", lambda *given, made=aot.compiled: made(*given)._replace(kernels={}))
    found = plan(folder, 8, "chips", 1, {"expert": 4, "fsdp": 2}, micro=2, **SETTINGS)
    assert found["notes"] == ["the cycles of attention are not known and count nothing"]


def test_what_is_sent_along_expert_is_told(folder, chip, monkeypatch):
    chip()
    sent = RECORDED.replace("[4,2]<=[8]", "[2,4]<=[4,2]T(1,0)")
    monkeypatch.setattr(aot, "compiled", lambda *given, made=aot.compiled: made(*given)._replace(text=sent))
    for experts, notes in ((8, 1), (1, 0)):
        found = plan(folder, experts, "chips", 1, {"expert": 4, "fsdp": 2}, micro=2, **SETTINGS | {"batch": 8})
        assert set(found["wire"]) == {"expert"} and len(found["notes"]) == notes


def test_the_largest_micro_that_fits(folder, chip):
    """Of eight rows on a device: four need too much, by the compiler's word or by its figures; two fit."""
    needed = {8: None, 4: 2 * GIB, 2: 1000}
    chip(lambda job: needed[job.settings.micro])
    found = plan(folder, 8, "chips", 1, {"expert": 4, "fsdp": 2}, micro=8, **SETTINGS | {"batch": 8})
    assert not found["fits"] and found["reason"] == "Ran out of memory"
    assert [(one["fits"], one["micro"], one["mesh"]["fsdp"]) for one in found["alternatives"]] == [(True, 2, 2)]


def test_fewer_experts_at_a_time_that_fit(folder, chip, monkeypatch):
    """The arguments of all experts are too much for a device; those of a quarter are not."""
    chip()
    held = {
        experts: sum(outcomes.argument_bytes(plans.asked(*_given(folder, experts))[1]).values()) for experts in (64, 32)
    }
    room = (held[64] + held[32]) // 2
    monkeypatch.setattr(outcomes, "room", lambda target: room)
    monkeypatch.setattr(plans, "room", lambda target: room)
    found = plan(folder, 128, "chips", 1, {"expert": 4, "fsdp": 2}, micro=2, **SETTINGS)
    assert not found["fits"] and "arguments of a step alone" in found["reason"]
    assert [(one["slots"], one["waves"], one["fits"]) for one in found["alternatives"]] == [(32, 4, True)]


def _given(folder, experts):
    return folder, experts, "chips", 1, {"expert": 4, "fsdp": 2}, None, None, SETTINGS


def test_waves_repeat_the_job_of_the_slots(folder, chip):
    chip()
    asked = folder, 10, "chips", 1, {"expert": 4, "fsdp": 2}
    found, of_slots = plan(*asked, micro=2, slots=4, **SETTINGS), plan(asked[0], 4, *asked[2:], micro=2, **SETTINGS)
    assert (found["experts"], found["slots"], found["waves"]) == (10, 4, 3)
    assert found["hours"] == pytest.approx(3 * of_slots["hours"]) and found["step"] == of_slots["step"]
    assert found["memory"] == of_slots["memory"]
    # More experts need as much again for each; the recorded program has no gradients, which would be a fifth.
    more = plan(asked[0], found["experts_that_fit"], *asked[2:], micro=2, **SETTINGS)["memory"]
    assert 0.78 * GIB < more["total"] <= GIB


def test_what_goes_between_slices(folder, chip, monkeypatch):
    wire = outcomes.Program.wire
    between = lambda self, mesh, network=False: {"fsdp": 5000} if network else wire(self, mesh)  # noqa: E731
    monkeypatch.setattr(outcomes.Program, "wire", between)
    asked = folder, 8, "chips", 2, {"expert": 4, "fsdp": 2}
    chip()
    found = plan(*asked, micro=2, **SETTINGS)
    assert found["network"] == {"fsdp": 5000} and "network" not in found["step"]
    assert found["notes"] == ["the speed of the network between slices is not known, and counts nothing"]
    chip(chip=CHIP._replace(network=1000))
    found = plan(*asked, micro=2, **SETTINGS)
    assert found["step"]["network"] == found["step"]["seconds"] == 5 and found["notes"] == []


def test_without_a_compiler_formulas_are_said_to_be_formulas(folder, monkeypatch):
    monkeypatch.setattr(aot, "compiled", lambda *given: pytest.fail("compiled"))
    found = plan(folder, 8, "h100:8", mesh={"expert": 4, "fsdp": 2}, micro=2, **SETTINGS)
    assert found["fits"] and found["source"] == "formulas" and "nothing was compiled" in found["notes"][-1]
    used = found["memory"]
    assert used["total"] == sum(used["arguments"].values()) + used["temporaries"]
    assert found["wire"]["fsdp"] > 0 and found["step"]["seconds"] == max(found["step"].values())
    assert "buffers" not in found and "share_of_peak" not in found
    large = plan(folder, 500_000, "l4:1", micro=400_000, **SETTINGS)
    (smaller,) = large["alternatives"]
    assert not large["fits"] and smaller["fits"] and smaller["micro"] < 400_000 and smaller["source"] == "formulas"
    assert plan(folder, 8, "laptop", **SETTINGS)["dtype"] == "float32"


def test_a_mesh_that_fits(folder, chip):
    """One row at a time is too much, with blocks recomputed too, but not with the base over more devices."""
    tried = []
    chip(lambda job: tried.append(job) or (1000 if job.mesh.shape["tensor"] == 2 else None))
    found = plan(folder, 8, "chips", 1, {"expert": 4, "fsdp": 2}, micro=1, **SETTINGS)
    assert [one["mesh"] for one in found["alternatives"]] == [{"expert": 2, "fsdp": 2, "tensor": 2}]
    assert [job.settings.remat for job in tried] == [False, True, False, False]
    assert [tuple(job.mesh.shape.values()) for job in tried[2:]] == [(2, 4, 1), (2, 2, 2)]


def test_at_most_so_many_candidates_are_compiled(folder, chip, monkeypatch):
    tried = []
    chip(tried.append)
    monkeypatch.setattr(plans, "CANDIDATES", 2)
    found = plan(folder, 8, "chips", 1, {"expert": 8}, micro=4, **SETTINGS)
    assert found["alternatives"] == [] and [job.settings.micro for job in tried] == [4, 2, 1]


def test_rows_at_a_time_are_chosen_by_the_memory_of_the_chip(folder, chip, monkeypatch):
    chip()
    asked = []
    monkeypatch.setattr(memory, "choice", lambda *given: asked.append(given[-1]) or {"micro": 3, "remat": True})
    found = plan(folder, 8, "chips", 1, {"expert": 4, "fsdp": 2}, **SETTINGS)
    assert (found["micro"], found["remat"]) == (3, True)
    assert asked == [GIB - found["memory"]["arguments"]["base"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mesh": {"expert": 3}}, "product is 8"),
        ({"mesh": {"experts": 8}}, "did you mean 'expert'"),
        ({"length": 65}, "length=65: expected at most 64"),
        ({"targets": 33}, "targets=33"),
        ({"experts": 0}, "experts=0"),
        ({"topology": "v9:2x2"}, "topology='v9:2x2'"),
        ({"quantize": "int3"}, "int3"),
        ({"sites": ("attn.x",)}, "attn.x"),
    ],
)
def test_arguments_that_do_not_fit(folder, given, message):
    with pytest.raises(InputError, match=message):
        plan(**{"model": folder, "experts": 2, **SETTINGS, **given})
