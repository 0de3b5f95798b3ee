"""What docs/methods.md shows of a leaderboard that was run: the means of each method, with intervals over examples.

make leaderboard
python benchmarks/leaderboard_losses.py --board=workdir/leaderboard --out=benchmarks/results/leaderboard_cpu.json
"""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import measuring

from modjax.files import read_json

PACKAGES = ("flax", "optax", "numpy")
PARTS = ("in_distribution", "held_out")
DIGITS = 4


def means(methods: list[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{method: {part of the tasks that it was scored on: its loss with the interval, exact match and Rouge-L}}."""
    return {one["name"]: {part: _rounded(one[part]) for part in PARTS if one.get(part)} for one in methods}


def _rounded(scores) -> dict[str, Any]:
    figures = {name: round(scores[name], DIGITS) for name in ("loss", "exact_match", "rouge_l")}
    return {"interval": [round(end, DIGITS) for end in scores["intervals"]["loss"]], **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", type=pathlib.Path, required=True, help="the workdir of the leaderboard")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the result, which is also printed")
    args = parser.parse_args()
    found = read_json(args.board / "leaderboard.json")
    measuring.report({"methods": means(found["methods"])}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
