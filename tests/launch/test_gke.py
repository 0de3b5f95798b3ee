"""gke.sh: the JobSet that it creates, checked against a schema, and the commands of kubectl, docker and xpk."""

import json
import pathlib
import shlex

import jsonschema
import pytest
import yaml
from scripts import COMMAND, ROOT, dry_run, launch, option, printed, programs

SCHEMA = json.loads((pathlib.Path(__file__).parent / "jobset.schema.json").read_text())
JOB = {"NAME": "experts", "IMAGE": "registry/modjax:1", "TOPOLOGY": "v5e:4x4", "CLAIM": "runs"}
CLUSTER = {"CLUSTER": "tpus", "ZONE": "us-west4-a", "PROJECT": "my project"}


def manifest(**variables):
    """The JobSet of a dry run, which fits the schema."""
    command, *lines, end = printed("gke.sh", "run", *COMMAND, **JOB | variables).splitlines()
    assert (command, end) == ("kubectl create --filename=- <<'END'", "END")
    found = yaml.safe_load("\n".join(lines))
    jsonschema.validate(found, SCHEMA)
    return found


def job_of(found):
    (slices,) = found["spec"]["replicatedJobs"]
    return slices["replicas"], slices["template"]["spec"]


def pod_of(found):
    return job_of(found)[1]["template"]["spec"]


@pytest.mark.parametrize(
    ("topology", "label", "pods", "chips", "xpk"),
    [
        ("v4:2x2x4", "tpu-v4-podslice", 4, 4, "v4-32"),
        ("v5e:1x1", "tpu-v5-lite-podslice", 1, 1, "v5litepod-1"),
        ("v5e:2x4", "tpu-v5-lite-podslice", 2, 4, "v5litepod-8"),
        ("v5e:16x16", "tpu-v5-lite-podslice", 64, 4, "v5litepod-256"),
        ("v5p:4x4x8", "tpu-v5p-slice", 32, 4, "v5p-256"),
        ("v6e:4x8", "tpu-v6e-slice", 8, 4, "v6e-32"),
    ],
)
def test_a_pod_for_each_host_of_each_slice(topology, label, pods, chips, xpk):
    found = manifest(TOPOLOGY=topology, SLICES="3")
    slices, job = job_of(found)
    assert (slices, job["parallelism"], job["completions"]) == (3, pods, pods)
    (container,) = pod_of(found)["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod_of(found)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology.partition(":")[2],
    }
    (create,) = dry_run("gke.sh", "xpk", *COMMAND, SLICES="3", **JOB | CLUSTER | {"TOPOLOGY": topology})
    assert (option(create, "tpu-type"), option(create, "num-slices")) == (xpk, "3")


@pytest.mark.parametrize("field", ["replicas: 1", "backoffLimit: 0", "maxRestarts: 10", "claimName: runs"])
def test_the_schema_refuses_a_misspelt_field(field):
    text = printed("gke.sh", "run", *COMMAND, **JOB).partition("\n")[2].removesuffix("END\n")
    assert field in text
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text.replace(field, f"my_{field}")), SCHEMA)


def test_spot_slices():
    pod = pod_of(manifest(SPOT="1"))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (toleration,) = pod["tolerations"]
    assert toleration["key"] == "cloud.google.com/gke-spot"


def test_the_container_gets_the_arguments_as_they_were_given():
    arguments = (*COMMAND, '--config.note=a "word" \\ $(HOME) $$')
    text = printed("gke.sh", "run", *arguments, **JOB)
    (container,) = pod_of(yaml.safe_load(text.partition("\n")[2].removesuffix("END\n")))["containers"]
    assert container["image"] == "registry/modjax:1"
    assert [word.replace("$$", "$") for word in container["args"]] == list(arguments)


def test_faulty_input_ends_the_job_and_a_preemption_does_not_count():
    found = manifest(RESTARTS="3")
    faulty, preempted = job_of(found)[1]["podFailurePolicy"]["rules"]
    assert faulty["onExitCodes"] == {"containerName": "modjax", "operator": "In", "values": [2]}
    assert preempted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    policy = found["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    assert [(rule["action"], rule["onJobFailureMessagePatterns"]) for rule in policy["rules"]] == [
        ("FailJobSet", ["rule at index 0"]),
        ("RestartJobSetAndIgnoreMaxRestarts", ["rule at index 1"]),
    ]


@pytest.mark.parametrize(
    ("state", "called"),
    [("", ["get", "create"]), ("Completed", ["get", "delete", "create"]), ("Failed", ["get", "delete", "create"])],
)
def test_a_job_that_has_ended_makes_room(tmp_path, state, called):
    kubectl = 'echo "$1" >>"$FOLDER/log"; case $1 in get) echo "$STATE" ;; create) cat >"$FOLDER/manifest" ;; esac'
    path = programs(tmp_path, kubectl=kubectl)
    done = launch("gke.sh", "run", *COMMAND, PATH=path, FOLDER=str(tmp_path), STATE=state, **JOB)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text().split() == called
    assert yaml.safe_load((tmp_path / "manifest").read_text()) == manifest()


def test_xpk_restarts_at_all_exit_codes_but_that_of_faulty_input():
    (create,) = dry_run("gke.sh", "xpk", *COMMAND, SPOT="1", RESTARTS="3", GRACE="60", **CLUSTER, **JOB)
    assert create[:3] == ["xpk", "workload", "create"]
    given = dict(word.removeprefix("--").split("=", 1) for word in create[3:] if "=" in word)
    assert {name: given[name] for name in ("workload", "cluster", "zone", "project", "docker-image")} == {
        "workload": "experts",
        "cluster": "tpus",
        "zone": "us-west4-a",
        "project": "my project",
        "docker-image": "registry/modjax:1",
    }
    assert (given["max-restarts"], given["termination-grace-period-seconds"]) == ("3", "60")
    assert given["restart-on-exit-codes"] == "1,3-126"  # to xpk's own: 42 and 127 to 255
    assert "--spot" in create
    assert shlex.split(given["command"]) == ["modjax", *COMMAND]


def test_the_image_has_what_the_installation_needs():
    build, push = dry_run("gke.sh", "build", IMAGE="registry/modjax:1", EXTRAS="tpu,demo")
    assert build[:2] == ["docker", "build"] and build[-1] == str(ROOT)
    assert "EXTRAS=tpu,demo" in build
    assert push == ["docker", "push", "registry/modjax:1"]
    file = pathlib.Path(build[build.index("--file") + 1]).read_text()
    copied = [word for line in file.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied == ["setup.py", "README.md", "modjax", "configs"]
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected [--dry-run] build"),
        (("start",), "unknown verb 'start'"),
        (("run",), "run needs a modjax command"),
        (("xpk",), "xpk needs a modjax command"),
        (("build", "train"), "build takes no arguments"),
    ],
)
def test_wrong_usage(arguments, message):
    done = launch("gke.sh", *arguments, **JOB)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("topology", ["v5e", "v5e:16", "v5e:4x", "v9:4x4", "4x4"])
def test_wrong_topologies(topology):
    done = launch("gke.sh", "--dry-run", "run", *COMMAND, **JOB | {"TOPOLOGY": topology})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gke.sh: TOPOLOGY: expected ")


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        ("build", "IMAGE"),
        ("run", "IMAGE TOPOLOGY CLAIM"),
        ("xpk", "IMAGE TOPOLOGY CLUSTER ZONE PROJECT"),
        ("delete", ""),
    ],
)
def test_missing_variables_are_named(verb, missing):
    command = COMMAND if verb in ("run", "xpk") else ()
    done = launch("gke.sh", "--dry-run", verb, *command, NAME="experts")
    if missing:
        assert done.returncode == 2 and done.stderr.startswith(f"gke.sh: set {missing};")
    else:
        assert done.stdout == "kubectl delete jobset experts --ignore-not-found\n"
