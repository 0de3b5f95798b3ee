"""The launch scripts: runs of them, and what they print in a dry run. No network, and no program of a cluster."""

import pathlib
import shlex
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
COMMAND = (
    "train",
    "--config=configs/private.py:phi2,tasks=/data/my tasks",
    "--workdir=/data/two words",
    "--config.note=it's $HOME",
)


def launch(script, *arguments, **variables):
    """The finished process; its environment is `variables`, and PATH with the system's own tools alone."""
    environment = {"PATH": "/usr/bin:/bin"} | variables
    path = ROOT / "launch" / script
    return subprocess.run([path, *arguments], env=environment, capture_output=True, text=True, timeout=60)


def printed(script, *arguments, **variables):
    """The text that a dry run prints."""
    done = launch(script, "--dry-run", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def dry_run(script, *arguments, **variables):
    """The commands that a dry run prints, each as the list of arguments that a shell reads."""
    return [shlex.split(line) for line in printed(script, *arguments, **variables).splitlines()]


def option(words, name):
    return next(word.removeprefix(f"--{name}=") for word in words if word.startswith(f"--{name}="))


def programs(folder, **scripts):
    """A PATH on which these shell scripts come first."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"
