"""The tables and the picture of docs/experiments.md, over seeds that may have been run at other times or elsewhere.

    python benchmarks/study_tables.py --study=workdir/study --results=benchmarks/results/study_sni_cpu
    python benchmarks/study_tables.py --results=benchmarks/results/study_sni_cpu

With --study, what that study has found with each of its seeds is first kept as seed-N.json in the folder of results:
the scores of all examples, also those of benchmarks/new_tasks.py. Then the tables over all seeds of the folder are
printed as Markdown, with 95 % intervals over seeds, tasks and examples, and --picture=docs/study draws docs/study.svg.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import measuring
import numpy as np
from matplotlib.figure import Figure
from new_tasks import METHODS as ON_NEW_TASKS

from modjax import metrics
from modjax.eval.hierarchy import Figures
from modjax.eval.intervals import Estimate
from modjax.eval.score import Score
from modjax.files import read_json
from modjax.report import picture, svg
from modjax.studies.benchmarks import folder_of, kept
from modjax.studies.claims import CLAIMS, Results
from modjax.studies.stages import Stages
from modjax.studies.study import JUDGED

PACKAGES = ("flax", "numpy")
PARTS = ("in_distribution", "held_out")
STARTS, SHOTS = ("LoRA", "shared", "MBC"), (10, 50, 100)
ADAPTED = tuple(f"adapt {start} {n}" for start in STARTS for n in SHOTS)
TITLES = {"in_distribution": "tasks in distribution", "held_out": "held-out tasks", "new": "more new tasks"}
GAP = ("mu (private)", "oracle (private)")
OTHER, OWN = "shared", "confident"  # the method that others are held beside; those of modjax alone


def keep(study: pathlib.Path, results: pathlib.Path) -> None:
    """Writes what each seed of a study that has ended found, with all of its methods that have scores in the folder."""
    done = read_json(study / "study.json")
    tasks = {part: [task["name"] for task in done["tasks"] if task["held_out"] == (part != PARTS[0])] for part in PARTS}
    correlation = next(claim for claim in done["claims"] if claim["claim"] == "a")
    results.mkdir(parents=True, exist_ok=True)
    for number, (seed, chosen) in enumerate(done["chosen"].items()):
        own = _of_seed(study / f"seed-{seed}", done["config"]["study"]["methods"])
        found = {"tasks": tasks, "chosen": chosen} | own | {"zero_shot": _right(study / f"seed-{seed}", chosen)}
        if number == 0 and correlation["verdict"] != "not measured":  # measured with the first seed alone
            found["transfer"] = {key: correlation[key] for key in ("value", "low", "high")}
        whole = {"seed": int(seed), **measuring.machine(*PACKAGES), **found}
        (results / f"seed-{seed}.json").write_text(json.dumps(whole) + "\n")


def _of_seed(folder, names) -> dict[str, Any]:
    stages, new = Stages(folder), Stages(folder / "new")

    def existing(path_of):
        paths = {name: path_of(name) for name in names}
        return {name: path for name, path in paths.items() if path.exists()}

    return {
        "scores": {name: _each(path) for name, path in existing(lambda name: stages.path(f"score {name}")).items()},
        "new": {name: _each(path) for name, path in existing(new.path).items()},
        "right": {
            name: read_json(path)["accuracy"]
            for name, path in existing(lambda name: stages.path(f"routing {name}")).items()
        },
        "seconds": stages.seconds,
    }


def _each(path) -> dict[str, dict]:
    """{task: the values of its examples} of a file of scores."""
    return {task: {"each": score["each"]} for task, score in read_json(path)["tasks"].items()}


def _right(folder, lines) -> dict[str, dict[str, list[int]]]:
    """{method: {benchmark: 1 for each question with a right answer, else 0}} of the methods that have some."""
    results = {name: kept(folder_of(folder, name, line)) for name, line in lines.items()}
    return {
        name: {one: result.values[result.metric].astype(int).tolist() for one, result in own.items()}
        for name, own in results.items()
        if own
    }


def tables(seeds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of all tables over some seeds; adaptation is over those of them that have all of it."""
    parts = figures(seeds)
    transfer = [Estimate(**seed["transfer"]) for seed in seeds if "transfer" in seed]
    yield from _methods(seeds, parts)
    yield from _claims(Results(*(parts[part] for part in PARTS), transfer[0] if transfer else None), adapted=False)
    if have := [seed for seed in seeds if set(ADAPTED) <= set(seed["scores"])]:
        held_out = _figures(have, "scores", seeds[0]["tasks"]["held_out"])
        yield from _adapted(held_out)
        yield from _claims(Results(None, held_out), adapted=True)
    if "new" in parts:
        yield from _new(parts["new"])
    if have := [seed for seed in seeds if seed.get("zero_shot")]:
        yield from _zero_shot([seed["zero_shot"] for seed in have])


def figures(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Figures]:
    """{"in_distribution", "held_out" and, if all seeds have it, "new": the figures of that part}."""
    found = {part: _figures(seeds, "scores", seeds[0]["tasks"][part]) for part in PARTS}
    if all(seed["new"] for seed in seeds):
        found["new"] = _figures(seeds, "new", next(iter(seeds[0]["new"].values())))
    return found


def _figures(seeds, key, tasks) -> Figures:
    """The figures of the methods that were scored on all of the tasks with every seed."""
    runs = [
        {name: {task: Score.from_json(own[task]) for task in tasks if task in own} for name, own in seed[key].items()}
        for seed in seeds
    ]
    known = [name for name in runs[0] if all(task in run.get(name, ()) for run in runs for task in tasks)]
    return Figures(runs, known, list(tasks))


def _methods(seeds, parts) -> Iterator[str]:
    yield from _head(
        "method", "in distribution: loss", "Rouge-L", "gap closed", "held out: loss", "Rouge-L", "right expert"
    )
    for name in _unadapted(seeds):
        known, new = (_means(parts[part], name) for part in PARTS)
        cells = *known, _share(parts[PARTS[0]], name), *new
        right = [seed["right"].get(name) for seed in seeds]
        yield _row(name, *cells, "" if None in right else f"{100 * np.mean(right):.0f} %")
    yield ""


def _unadapted(seeds) -> list[str]:
    return [name for name in seeds[0]["scores"] if not name.startswith("adapt ")]


def _adapted(held_out) -> Iterator[str]:
    yield from _head("start", *(f"{n}: {metric}" for n in SHOTS for metric in ("loss", "Rouge-L")))
    for start in STARTS:
        yield _row(start, *(cell for n in SHOTS for cell in _means(held_out, f"adapt {start} {n}")))
    yield ""


def _claims(results, adapted: bool) -> Iterator[str]:
    """The claims about adaptation, or all others."""
    yield from _head("claim", "by loss", "by Rouge-L")
    for claim in CLAIMS:
        if adapted == any(name in ADAPTED for name in claim.methods):
            verdicts = [claim.judged(results, metric) for metric in JUDGED]
            yield _row(f"{claim.key}. {claim.figure}", *map(_verdict, verdicts))
    yield ""


def _verdict(found) -> str:
    if found["verdict"] == "not measured":
        return found["verdict"]
    return f"{found['verdict']}: {_interval(Estimate(found['value'], found['low'], found['high']))}"


def _new(figures) -> Iterator[str]:
    yield from _head("method", "loss", "gain over the shared expert")
    for name in (name for name in ON_NEW_TASKS if name in figures.methods):
        gain = "" if name == OTHER else _interval(figures.difference("loss", OTHER, name))
        yield _row(name, _interval(figures.mean("loss", name)), gain)
    yield ""


def _zero_shot(runs) -> Iterator[str]:
    """The accuracy of each method in percent: the mean, its gain over the shared expert, and each benchmark."""
    names, metric = list(next(iter(runs[0].values()))), metrics.EXACT_MATCH.name
    scores = [
        {method: {name: Score.of_right(right) for name, right in own.items()} for method, own in run.items()}
        for run in runs
    ]
    found = Figures(scores, list(runs[0]), names, fixed=True)
    yield from _head("method", "mean", "gain over the shared expert", *names)
    for method in found.methods:
        mean, gain = found.mean(metric, method), found.difference(metric, method, OTHER)
        each = [np.mean([run[method][name][metric] for run in scores]) for name in names]
        cells = f"{100 * mean.value:.1f} ± {100 * _half(mean):.1f}", "" if method == OTHER else _percent(gain)
        yield _row(method, *cells, *(f"{100 * one:.0f}" for one in each))
    yield ""


def _percent(found: Estimate) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * end for end in (found.value, found.low, found.high)))


def _means(figures, name) -> tuple[str, str]:
    """The loss, and Rouge-L in percent, each with half the width of its interval."""
    if name not in figures.methods:
        return "", ""
    loss, rouge = (figures.mean(metric, name) for metric in JUDGED)
    return f"{loss.value:.3f} ± {_half(loss):.3f}", f"{100 * rouge.value:.1f} ± {100 * _half(rouge):.1f}"


def _share(figures, name) -> str:
    """The share of the gap from the mean of private experts to their oracle; nothing for these two, or without them."""
    if name in GAP or not {name, *GAP} <= set(figures.methods):
        return ""
    found = figures.share("loss", name, *GAP)
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _half(found: Estimate) -> float:
    return (found.high - found.low) / 2


def _interval(found: Estimate) -> str:
    value, low, high = (f"{end:z.3f}" for end in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _count(seed, part) -> int:
    return len(next(iter(seed["new"].values())) if part == "new" else seed["tasks"][part])


def gains(seeds: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> Figure:
    """A panel per part with a row per method: its gain over the shared expert, and the interval of that."""
    names = [name for name in _unadapted(seeds) if name not in ("base", OTHER)]
    figure, parts = svg.figure(1040, 80 + 27 * len(names)), figures(seeds)
    panels = figure.subplots(1, len(parts), sharey=True)
    for panel, (part, found) in zip(panels, parts.items(), strict=True):
        _gain_panel(panel, found, names, colours)
        panel.set_title(f"{_count(seeds[0], part)} {TITLES[part]}")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].tick_params(axis="y", labelcolor=colours["ink"])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("gain over the shared expert, nats per target token", color=colours["muted"], fontsize=12)
    return figure


def _gain_panel(panel, found: Figures, names, colours) -> None:
    panel.axvline(0, color=colours["muted"], linewidth=1)
    for row, name in enumerate(names):
        if name in found.methods:
            gain, colour = found.difference("loss", OTHER, name), colours["method-1" if OWN in name else "method-2"]
            panel.hlines(row, gain.low, gain.high, color=colour, linewidth=1.6, alpha=0.6)
            panel.scatter(gain.value, row, s=30, color=colour, zorder=3)
    panel.grid(axis="y", visible=False)
    panel.spines[["left", "bottom"]].set_visible(False)


def _head(*cells: str) -> tuple[str, str]:
    return _row(*cells), "|" + "---|" * len(cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--study", type=pathlib.Path, help="the workdir of a study that has ended")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="the folder of seed-N.json")
    parser.add_argument("--picture", type=pathlib.Path, help="the picture, a path without .svg")
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    if args.study:
        keep(args.study, args.results)
    seeds = [read_json(path) for path in sorted(args.results.glob("seed-*.json"))]
    print("\n".join(tables(seeds)))
    if args.picture:
        label = "Gains of methods over the shared expert"
        picture.write(lambda colours: gains(seeds, colours), args.picture, label)


if __name__ == "__main__":
    main()
