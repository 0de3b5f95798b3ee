"""slurm.sh: the batch script that it submits, and what that does at the end of its time."""

import subprocess
import time

import pytest
from scripts import COMMAND, launch, programs

# srun notes its arguments and ends with $CODE. Where $SLOW is set, it runs until it is told to stop, and ends with
# $TOLD; where that is empty, too, it runs until the job is queued again.
SRUN = """
echo "$$" >"$FOLDER/pid"
printf '%s\\n' "$@" >"$FOLDER/srun.log"
trap '[ -z "$TOLD" ] || exit $TOLD' TERM
if [ "$SLOW" ]; then sleep 0.3; kill -USR1 "$PPID"; while :; do sleep 0.1; done; fi
exit "$CODE"
"""
FAKES = {
    "sbatch": 'cat >"$FOLDER/job"',
    "srun": SRUN,
    "scancel": 'echo "$*" >"$FOLDER/scancel.log"; kill -TERM "$(cat "$FOLDER/pid")"',
    "scontrol": 'echo "$*" >>"$FOLDER/scontrol.log"; kill -KILL "$(cat "$FOLDER/pid")" 2>/dev/null',
    "modjax": "",
}


@pytest.fixture
def submit(tmp_path):
    """Submits a command; gives the batch script, a file."""
    (tmp_path / "bin").mkdir()
    path = programs(tmp_path / "bin", **FAKES)

    def run(**variables):
        variables = {"PATH": path, "FOLDER": str(tmp_path), "VENV": str(tmp_path)} | variables
        done = launch("slurm.sh", *COMMAND, **variables)
        assert done.returncode == 0, done.stderr
        return tmp_path / "job"

    return run


def options(job):
    words = [line.removeprefix("#SBATCH --") for line in job.read_text().splitlines() if line.startswith("#SBATCH ")]
    return dict(word.split("=") if "=" in word else (word, "") for word in words)


def test_a_process_for_each_gpu(submit):
    asked = options(submit(NODES="4", GPUS="8", CPUS="12", TIME="2-00:00:00", GRACE="600", NAME="experts"))
    assert asked == {
        "job-name": "experts",
        "output": "experts-%j.log",
        "open-mode": "append",
        "nodes": "4",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "cpus-per-task": "12",
        "time": "2-00:00:00",
        "signal": "B:USR1@600",
        "requeue": "",
    }


@pytest.mark.parametrize(("variables", "tasks"), [({}, "1"), ({"TASKS": "2"}, "2")])
def test_processes_without_gpus(submit, variables, tasks):
    asked = options(submit(GPUS="0", **variables))
    assert asked["ntasks-per-node"] == tasks and "gpus-per-node" not in asked


@pytest.fixture
def run(submit, tmp_path):
    """Runs the batch script of a command with these variables."""

    def run(code="", told="", slow="", **variables):
        job = submit(**variables)
        environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "FOLDER": str(tmp_path), "SLURM_JOB_ID": "7"}
        environment |= {"CODE": code, "TOLD": told, "SLOW": slow}
        return subprocess.run(["bash", job], env=environment, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def got(tmp_path):
    """The lines of what a program got."""
    return lambda name: log.read_text().splitlines() if (log := tmp_path / f"{name}.log").exists() else []


@pytest.mark.parametrize("code", [0, 9])
def test_a_command_that_ends_ends_the_job(run, got, tmp_path, code):
    done = run(code=str(code))
    assert (done.returncode, done.stderr) == (code, "")
    assert got("scancel") == got("scontrol") == []
    assert got("srun") == ["--cpus-per-task=4", f"{tmp_path}/bin/modjax", *COMMAND]


@pytest.mark.parametrize(("code", "requeued"), [(75, ["requeue 7"]), (0, [])])
def test_near_its_time_limit_a_job_saves_and_queues_again_unless_it_finished(run, got, code, requeued):
    done = run(slow="1", told=str(code), GRACE="2")
    assert (done.returncode, done.stderr) == (code, "")
    time.sleep(1.2)  # longer than a job has to stop
    assert (got("scancel"), got("scontrol")) == (["--signal=TERM 7"], requeued)


def test_a_job_that_does_not_stop_queues_again_all_the_same(run, got):
    done = run(slow="1", GRACE="1")
    assert done.returncode == 128 + 9
    assert got("scancel") == ["--signal=TERM 7"] and got("scontrol")[0] == "requeue 7"
