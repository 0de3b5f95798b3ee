"""Several processes: when they are detected, and that they train the same experts as one process."""

import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modjax
from modjax import data
from modjax.cli import ending
from modjax.errors import Busy, InputError
from modjax.eval.sample import Sample
from modjax.experts.library import Library
from modjax.model import load
from modjax.parallel import distributed
from modjax.train import metrics, reports
from modjax.train.lora import train_library

SETTINGS = {
    "steps": 3,
    "batch": 2,
    "length": 32,
    "rank": 2,
    "sites": ["attn.q"],
    "learning_rate": 1e-2,
    "save_every": 2,
    "evaluate_every": 2,
    "patience": 2,
}
WORKER = """
import json, pathlib, sys
import jax
port, index, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, index)
from modjax import data
from modjax.model import load
from modjax.parallel.distributed import from_first
from modjax.parallel.mesh import make_mesh
from modjax.train.lora import train_library
from tests.parallel.test_distributed import evaluated, terminate_at
assert from_first(lambda: f"of process {index}") == "of process 0"
settings = json.loads((folder / "settings.json").read_text())
if settings.pop("terminate", False):
    terminate_at(2, index)
model = load(folder / "model", mesh=make_mesh(expert=2, fsdp=2))
library = train_library(model, data.load(folder / "tasks"), workdir=folder / "work", progress=False, **settings)
library.save(folder / f"library{index}")
scored = evaluated(model, data.load(folder / "tasks"), library)
(folder / f"scored{index}.json").write_text(json.dumps(scored))
"""


def terminate_at(number, index):
    """The second process gets SIGTERM when it has the metrics of this step."""

    def reported(self, latest):
        if latest.number == number + 1 and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, latest)

    step = reports.Reports.step
    reports.Reports.step = reported


def evaluated(model, tasks, library):
    """Answers and losses of the experts under a router, as plain data."""
    router = modjax.routing.arrow(library, top_k=2)
    own = {"library": library, "router": router}
    scores = modjax.evaluate(model, tasks, **own, sample=Sample(3, "validation"), max_new_tokens=4, progress=False)
    prompts = [task[0].source for task in tasks.values()]
    answers = model.generate(prompts, **own, max_new_tokens=4)
    logits = np.asarray(distributed.gather(model.logits(np.arange(12).reshape(3, 4), **own)))
    return {
        "loss": {name: score["loss"] for name, score in scores.items()},
        "answers": answers,
        "logits": logits.tolist(),
    }


@pytest.mark.parametrize(
    ("environment", "many"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"JAX_NUM_PROCESSES": ""}, False),
        ({"JAX_NUM_PROCESSES": "8"}, True),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
        ({"MODJAX_DISTRIBUTED": "1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host0,host1"}, True),
    ],
)
def test_whether_there_are_others_is_in_the_environment(environment, many):
    assert distributed.is_one_of_many(environment) == many


def test_alone_nothing_is_started_and_this_process_writes():
    distributed.start(environment={})
    assert distributed.is_writer()
    gathered = distributed.gather({"x": jnp.arange(3)})
    assert isinstance(gathered["x"], np.ndarray)


@pytest.fixture
def initialized(monkeypatch):
    """What jax.distributed is started with."""
    given = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **named: given.append(named))
    return given


TIMEOUTS = {"initialization_timeout": 300, "heartbeat_timeout_seconds": 100, "shutdown_timeout_seconds": 100}
VARIABLES = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("host:2", 2, 1), {}, ("host:2", 2, 1)),
        ((), VARIABLES, ("host:1", 3, 2)),
        (("host:2", None, None), VARIABLES, ("host:2", 3, 2)),
        ((None, None, 1), VARIABLES, ("host:1", 3, 1)),
        ((), {"SLURM_NTASKS": "2"}, (None, None, None)),  # jax finds them
    ],
)
def test_processes_are_told_of_each_other(arguments, environment, expected, initialized):
    assert distributed.start(*arguments, environment=environment)
    names = ("coordinator_address", "num_processes", "process_id")
    assert initialized == [dict(zip(names, expected, strict=True)) | TIMEOUTS]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("host:1", 2, None), {}, "process_id = None: The process id of the current process must be defined"),
        ((None, 2, 1), {}, "coordinator_address = None, .*: coordinator_address should be defined"),
        (("host:1", 2, 2), {}, r"process_id = 2: .*; expected all three, with 0 <= process < processes"),
        (("host", 2, 0), {}, "coordinator = host: expected HOST:PORT"),
        (("host:x", 2, 1), {}, "coordinator = host:x: expected HOST:PORT"),
        ((), VARIABLES | {"JAX_PROCESS_ID": "last"}, "JAX_PROCESS_ID=last: expected a whole number"),
        ((), {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: expected a whole number"),
    ],
)
def test_a_process_that_cannot_join_is_told_why(arguments, environment, words, monkeypatch):
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    with pytest.raises(InputError, match=words):
        distributed.start(*arguments, environment=environment)


def test_a_port_in_use_is_named():
    with (
        socket.create_server(("", 0)) as server,
        pytest.raises(InputError, match="Address already in use; expected a port"),
    ):
        distributed.start(f"localhost:{server.getsockname()[1]}", 2, 0)


@pytest.fixture
def as_process(monkeypatch):
    """Acts as one of two processes; what the first sends is what the second hears."""
    sent = []

    def act(index):
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(distributed, "_broadcast", lambda message: (sent.append(message), sent[0])[1])

    return act


def test_the_first_process_works_and_all_get_its_result(as_process):
    as_process(0)
    assert distributed.from_first(lambda: {"prompts": ["a"], "done": True}) == {"prompts": ["a"], "done": True}
    as_process(1)
    assert distributed.from_first(lambda: pytest.fail("the second must not work")) == {"prompts": ["a"], "done": True}


ERRORS = [
    InputError("config.json: of another job"),
    Busy("job: process 7 on host works in this folder"),
    OSError(errno.ENOSPC, "No space left on device", "job/config.json"),
    PermissionError(errno.EACCES, "Permission denied"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_the_first_that_is_no_bug_is_raised_on_all(error, as_process):
    def refuse():
        raise error

    for index in range(2):
        as_process(index)
        with pytest.raises(type(error)) as raised:
            distributed.from_first(refuse if index == 0 else dict)
        assert type(raised.value) is type(error) and ending.show(raised.value) == ending.show(error)


def test_errors_of_lost_processes_are_known(monkeypatch):
    lost = ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:33483: Connection reset by peer")
    assert not distributed.is_lost(lost)  # one process alone
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert distributed.is_lost(lost) and not distributed.is_lost(ValueError("odd"))


@pytest.mark.slow
def test_two_processes_train_what_one_trains(job):
    run_two_processes(job)
    first, second = (Library.load(job / f"library{index}") for index in range(2))
    settings = json.loads((job / "settings.json").read_text())
    alone = train_library(load(job / "model"), data.load(job / "tasks"), progress=False, **settings)
    for one, other, expected in zip(*(jax.tree.leaves(library) for library in (first, second, alone)), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, expected, atol=1e-5)
    scored = [json.loads((job / f"scored{index}.json").read_text()) for index in range(2)]
    assert scored[0] == scored[1]
    expected = evaluated(load(job / "model"), data.load(job / "tasks"), first)
    assert scored[0]["answers"] == expected["answers"]
    assert scored[0]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    np.testing.assert_allclose(scored[0]["logits"], expected["logits"], atol=1e-5)
    assert [info.training for info in first.infos] == [info.training for info in alone.infos]
    lines = metrics.read(job / "work" / "metrics.jsonl")
    assert sorted((line["step"], line["kind"]) for line in lines) == [
        (1, "train"),
        (2, "train"),
        (2, "validation"),
        (3, "train"),
    ]


@pytest.mark.slow
def test_two_processes_train_in_waves_each_on_data_of_its_own(job):
    """Four experts in two slots, one per process; the run is stopped in its second wave."""
    settings = SETTINGS | {"slots": 2, "steps": 6, "save_every": 2, "log_every": 1000}
    settings |= {"evaluate_every": 0, "patience": 0}
    (job / "settings.json").write_text(json.dumps(settings | {"terminate": True}))
    with pytest.raises(AssertionError, match=r"stopped by SIGTERM after step \d+ of 12; the same command goes on"):
        run_two_processes(job)
    (job / "settings.json").write_text(json.dumps(settings))
    run_two_processes(job)
    together = train_library(load(job / "model"), data.load(job / "tasks"), progress=False, **settings | {"slots": 0})
    for one, expected in zip(*map(jax.tree.leaves, (Library.load(job / "library1"), together)), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-5)


@pytest.mark.slow
def test_when_one_process_is_told_to_stop_all_save_the_same_step_and_go_on(job):
    settings = SETTINGS | {"steps": 40, "evaluate_every": 0, "patience": 0, "save_every": 1000, "log_every": 1000}
    (job / "settings.json").write_text(json.dumps(settings | {"terminate": True}))
    with pytest.raises(AssertionError, match=r"stopped by SIGTERM after step \d+ of 40; the same command goes on"):
        run_two_processes(job)
    (step,) = [int(path.name) for path in (job / "work" / "checkpoints").iterdir()]
    assert 2 < step < 40
    (job / "settings.json").write_text(json.dumps(settings))
    run_two_processes(job)
    alone = train_library(load(job / "model"), data.load(job / "tasks"), progress=False, **settings)
    for one, expected in zip(*map(jax.tree.leaves, (Library.load(job / "library0"), alone)), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-5)


@pytest.fixture
def job(torch_model, word_tokenizer, word_tasks, tmp_path):
    """A folder with everything that a process reads: model, tasks, settings."""
    torch_model("llama", vocab_size=64).save_pretrained(tmp_path / "model")
    word_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "tasks").mkdir()
    lines = [
        json.dumps({"task": task.name, "source": one.source, "target": one.target, "split": one.split})
        for task in word_tasks.values()
        for one in task
    ]
    (tmp_path / "tasks" / "words.jsonl").write_text("\n".join(lines))
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    return tmp_path


def run_two_processes(job):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    root = str(pathlib.Path(distributed.__file__).parents[2])
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": root}
    command = [sys.executable, "-c", WORKER, port]
    workers = [
        subprocess.Popen([*command, str(i), str(job)], env=environment, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        for worker in workers:
            _, complaints = worker.communicate(timeout=240)
            assert worker.returncode == 0, complaints[-4000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
