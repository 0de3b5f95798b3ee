#!/usr/bin/env bash
# Runs one modjax command on the nodes of a Slurm cluster, as a batch job: one process per GPU, as jax expects it.
#
#   EXTRAS=cuda launch/slurm.sh train --config=configs/private.py:phi2,tasks=/data/tasks --workdir=/data/private
#   NODES=4 GPUS=8 TIME=24:00:00 SBATCH_ACCOUNT=my-account SBATCH_PARTITION=gpu EXTRAS=cuda \
#     launch/slurm.sh train --config=configs/private.py:phi2,tasks=/data/tasks --workdir=/data/private
#   GPUS=0 TASKS=2 CPUS=1 launch/slurm.sh train --config=configs/private.py:quick --workdir=workdir/quick
#   launch/slurm.sh --dry-run train --config=configs/private.py:quick --workdir=workdir/quick
#
# NODES GPUS  nodes (1), and GPUs per node (1); 0 runs on CPUs
# TASKS CPUS  processes per node (GPUS, or 1 without GPUs), and cores per process (4)
# TIME GRACE  the time limit (24:00:00), and how many seconds before it modjax is told to save (300)
# NAME        name of the job and of its log (modjax): NAME-JOBID.log in this folder
# SBATCH_*    sbatch's own variables, such as SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_QOS and SBATCH_MEM_PER_NODE
# EXTRAS PYTHON VENV  as for launch/local.sh, which makes the environment; all nodes must see it, as well as --workdir
#
# Before the time limit modjax gets SIGTERM, and the job goes back to the queue and resumes when its turn comes. Slurm
# itself does that for a job that is preempted or loses a node. The same command, given again, resumes, too.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"
NODES=${NODES:-1} GPUS=${GPUS:-1} CPUS=${CPUS:-4} TIME=${TIME:-24:00:00} GRACE=${GRACE:-300} NAME=${NAME:-modjax}
if [[ $GPUS == 0 ]]; then TASKS=${TASKS:-1}; else TASKS=${TASKS:-$GPUS}; fi
whole NODES GPUS TASKS CPUS GRACE
export VENV=${VENV:-$root/.venv}

[[ $# -gt 0 && $1 != -* ]] || fail "expected [--dry-run] and a modjax command, as in: launch/slurm.sh train --config=..."

# The batch script. jax.distributed reads the number of processes, and which one this is, from what srun sets.
script() {
  cat <<END
#!/usr/bin/env bash
#SBATCH --job-name=$NAME
#SBATCH --output=$NAME-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=$NODES
#SBATCH --ntasks-per-node=$TASKS
#SBATCH --cpus-per-task=$CPUS
END
  if [[ $GPUS != 0 ]]; then echo "#SBATCH --gpus-per-node=$GPUS"; fi
  cat <<END
#SBATCH --time=$TIME
#SBATCH --signal=B:USR1@$GRACE
#SBATCH --requeue

# Near the time limit this script gets USR1: modjax gets TERM, saves and stops, and the job queues again, also if modjax
# has not stopped after most of the $GRACE seconds.
timer=
queue_again() { scontrol requeue "\$SLURM_JOB_ID"; }
trap '
  scancel --signal=TERM "\$SLURM_JOB_ID"
  { sleep $((GRACE * 4 / 5)) && queue_again; } >/dev/null 2>&1 &
  timer=\$!
' USR1

srun --cpus-per-task=$CPUS $(quoted "$VENV/bin/modjax" "$@") &
step=\$!
wait \$step # ends when srun does, or with the signal
while kill -0 \$step 2>/dev/null; do wait \$step; done
wait \$step
code=\$?
if [[ \$timer ]]; then kill "\$timer"; fi
if [[ \$timer && \$code != 0 ]]; then queue_again; fi
exit \$code
END
}

"$root/launch/local.sh" $dry install
if [[ $dry ]]; then
  echo "sbatch <<'END'"
  script "$@"
  echo END
else
  script "$@" | sbatch
fi
