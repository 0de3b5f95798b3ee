"""The plans of all recipes, as configs/plans has them, made anew; and the table of them in docs/plan.md.

    pip install -e '.[plan]'  # libtpu, for the recipes on TPUs
    python benchmarks/recipe_plans.py phi2_v5e_256 smollm2_laptop  # these plans; without names all, minutes each
    python benchmarks/recipe_plans.py --table  # prints the table

A plan is made by the command that docs/plan.md names, `modjax plan --config=configs/recipes.py:NAME`.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import config_files

PLANS = config_files.FOLDER / "plans"
TITLES = (
    "recipe",
    "devices",
    "mesh",
    "experts x waves",
    "rows",
    "GiB",
    "GB sent",
    "s a step",
    "of peak",
    "hours",
    "chip-hours",
    "per million rows",
)


def names() -> list[str]:
    """The recipes, in the order of configs/recipes.py."""
    return list(config_files.module("recipes").RECIPES)


def config(name: str):
    """The config of a recipe."""
    return config_files.module("recipes").get_config(name)


def made(name: str) -> dict:
    """The plan of a recipe, made by the command line, without the seconds that compiling it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "modjax", "plan", f"--config=configs/recipes.py:{name}", f"--workdir={folder}"]
        subprocess.run(command, cwd=config_files.FOLDER.parent, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(pathlib.Path(folder, "plan.json").read_text())
    return {key: value for key, value in found.items() if key != "compilation_seconds"}


def kept(name: str) -> dict:
    """The plan of a recipe in configs/plans."""
    return json.loads((PLANS / f"{name}.json").read_text())


def table(plans: dict[str, dict]) -> str:
    """Plans as a Markdown table. Rows: of an expert in a step, and those that a device holds at a time."""
    lines = [TITLES, ["---"] * len(TITLES)]
    lines += [_row(name, plan) for name, plan in plans.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name, plan) -> list[str]:
    memory = plan["memory"]
    by_formulas = plan["source"] == "formulas"
    least = "at least " if by_formulas else ""
    rows = plan["steps"] * plan["experts"] * plan["batch"]
    return [
        name,
        plan["topology"],
        "x".join(map(str, plan["mesh"].values())) or "1",
        f"{plan['slots']} x {plan['waves']}",
        f"{plan['batch']}, {plan['micro']} at a time" + (", recomputed" if plan["remat"] else ""),
        f"{memory['total'] / 2**30:.1f} of {memory['device'] / 2**30:.0f}",
        f"{sum(plan['wire'].values()) / 1e9:,.0f}",
        f"{least}{plan['step']['seconds']:.3g}",
        "" if by_formulas else f"{plan['share_of_peak']:.0%}",
        f"{least}{plan['hours']:.3g}",
        least + _rounded(plan["chip_hours"]),
        least + _rounded(plan["chip_hours"] / rows * 1e6),
    ]


def _rounded(number: float) -> str:
    return f"{number:,.3g}" if number < 10 else f"{number:,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; by default all")
    parser.add_argument("--table", action="store_true", help="print the table of the plans that are kept")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names()):
        parser.error(f"no recipe {', '.join(sorted(unknown))}; expected {', '.join(names())}")
    if given.table:
        print(table({name: kept(name) for name in names()}))
        return
    PLANS.mkdir(exist_ok=True)
    for name in given.names or names():
        (PLANS / f"{name}.json").write_text(json.dumps(made(name), indent=2) + "\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
