"""Several processes: when they are looked for, and that together they train what one trains."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.experts.library import Library
from modjax.parallel import distributed
from modjax.train import metrics
from modjax.train.loop import train_library

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
from modjax.parallel.mesh import make_mesh
from modjax.train.loop import train_library
model = load(folder / "model", mesh=make_mesh(expert=2, fsdp=2))
settings = json.loads((folder / "settings.json").read_text())
library = train_library(model, data.load(folder / "tasks"), workdir=folder / "work", progress=False, **settings)
library.save(folder / f"library{index}")
"""


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
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host0,host1"}, True),
    ],
)
def test_whether_there_are_others_is_in_the_environment(environment, many):
    assert distributed.is_one_of_many(environment) == many


def test_alone_nothing_is_started_and_this_process_writes():
    distributed.start({})
    assert distributed.is_writer()
    gathered = distributed.gather({"x": jnp.arange(3)})
    assert isinstance(gathered["x"], np.ndarray)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(word_model, word_tasks, torch_model, tmp_path):
    write_job(word_model, word_tasks, torch_model, tmp_path)
    run_two(tmp_path)
    first, second = (Library.load(tmp_path / f"library{index}") for index in range(2))
    alone = train_alone(tmp_path)
    for a, b, expected in zip(*(one.loras["attn.q"] for one in (first, second, alone)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, expected, atol=1e-5)
    lines = metrics.read(tmp_path / "work" / "metrics.jsonl")
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 1), ("validation", 2), ("train", 2), ("train", 3)
    ]
