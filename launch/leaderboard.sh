#!/usr/bin/env bash
# Every method on the tasks of the demo: trains the libraries that the demo does not, then runs the leaderboard.
#
#   make leaderboard        or, after `make demo`,    launch/leaderboard.sh [--dry-run]
#
# Each library learns from as many rows as the demo's, 256. The shared expert stands in for one of general text, whose
# knowledge GenKnowSub subtracts. Run it again and it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dry=
if [[ ${1:-} == --dry-run ]]; then dry=1; shift; fi
if [[ $# != 0 ]]; then
  echo "leaderboard.sh: expected --dry-run or nothing" >&2
  exit 2
fi

modjax() { launch/local.sh ${dry:+--dry-run} "$@"; }

private=workdir/demo/private/library
for method in random embedding; do
  modjax cluster --config=configs/mbc.py:demo --config.library=$private --config.cluster.clusters=5 \
    --config.cluster.method=$method --workdir=workdir/$method-clusters
  modjax train --config=configs/mbc.py:demo --config.groups=workdir/$method-clusters/clusters.json \
    --config.train.batch=3 --config.train.steps=17 --workdir=workdir/$method
done
modjax train --config=configs/private.py:demo --config.train.shared_a=True --workdir=workdir/shared_a
modjax train --config=configs/poly.py:demo --workdir=workdir/poly
modjax train --config=configs/poly.py:demo,mhr --workdir=workdir/mhr
modjax train --config=configs/full.py:demo --workdir=workdir/full

libraries=(mbc=workdir/demo/mbc shared=workdir/demo/shared general=workdir/demo/shared)
for name in shared_a random embedding poly mhr; do libraries+=("$name=workdir/$name"); done
libraries=("${libraries[@]/%//library}")
modjax leaderboard --config=configs/leaderboard.py:demo --config.library=$private \
  "${libraries[@]/#/--config.leaderboard.libraries.}" --config.leaderboard.models.full=workdir/full/model \
  --workdir=workdir/leaderboard --report=report/leaderboard
