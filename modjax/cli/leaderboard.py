"""`modjax leaderboard`: every method that the config lists on one library, and the page that compares them."""

import dataclasses
import functools
import json
import math
import time

from modjax import report
from modjax.cli import evaluate as scores
from modjax.cli import lines, pieces, results, session
from modjax.cli.lines import libraries_of
from modjax.cli.stages import Stages
from modjax.errors import InputError
from modjax.eval.analysis import analyse
from modjax.eval.cost import measure
from modjax.eval.evaluate import evaluate, sample
from modjax.eval.score import summary
from modjax.eval.traces import view
from modjax.experts.library import Library
from modjax.files import read_json, write_json

CHOICE = ("examples", "split", "seed", "length", "system", "too_long")  # the settings that choose examples


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/leaderboard.json, a JSON file a method, and the HTML report."""
    shared = config.copy_and_resolve_references()
    with shared.unlocked():
        del shared.leaderboard  # its lines may change between runs
    job = _Job(config, session.enter(workdir, shared))
    found = job.results()
    write_json(job.stages.folder / "leaderboard.json", found)
    print(report.text_table(found))
    print(f"report: {report.write(found, flags.report)}")


class _Job:
    """The model, the tasks, the libraries, and the methods as the config's lines make them."""

    def __init__(self, config, folder):
        self.config, self.stages = config, Stages(folder)
        pieces.library(config)  # says at once where there is none
        self.paths = {"library": config.library} | config.leaderboard.libraries.to_dict()
        self.methods = self._methods()
        self.model, self.tasks = pieces.model(config), pieces.tasks(config)
        self.library = functools.cache(lambda name: Library.load(self.paths[name]))

    def _methods(self):
        """{name: its line}, without those of libraries that have no folder. Raises InputError for a faulty line."""
        found = json.loads(self.config.leaderboard.methods.to_json())
        for name, line in found.items():
            lines.check(name, line, self.paths)
        files = [self.stages.path(f"method {name}") for name in found]
        if len(set(files)) < len(files):
            raise InputError(f"config.leaderboard.methods: two of {', '.join(found)} would share a file; rename one")
        return {name: line for name, line in found.items() if all(self.paths[used] for used in libraries_of(line))}

    def results(self) -> dict:
        """Every method in turn, those that fail with what they fail of; what is returned is what the report shows."""
        found, errors = {}, {}
        for name, line in self.methods.items():
            try:
                found[name] = self.measured(name, line)
            except InputError as error:
                print(f"method {name}: {error}", flush=True)
                errors[name] = str(error)
        return self.collected(found, errors)

    def measured(self, name, line):
        """What was measured of a method, now or earlier; anew where its line or its libraries are others."""
        made_of = {"line": line, "folders": {used: self.paths[used] for used in libraries_of(line)}}
        path = self.stages.path(f"method {name}")
        if path.exists() and read_json(path)["made_of"] != made_of:
            path.unlink()
        return self.stages.json(f"method {name}", lambda: {"made_of": made_of, **self.measure(name, line)})

    def measure(self, name, line):
        start, chosen = time.perf_counter(), self.chosen()
        tasks, system = self.tasks.training, chosen.get("system")
        method = lines.make(name, line, self.paths, self.library, self.model, tasks, system)
        built = time.perf_counter() - start
        found, seconds = evaluate(self.model, method, self.tasks, **self.config.evaluate)
        measured = {
            "build": built,
            "cost": dataclasses.asdict(measure(self.model, method, self.tasks, **chosen)),
            **scores.as_json(found, seconds),
        }
        return measured | (self.looked_at(method, chosen) if name in self.config.leaderboard.analyse else {})

    def chosen(self):
        return {key: value for key, value in self.config.evaluate.items() if key in CHOICE}

    def looked_at(self, method, chosen):
        """How the router divides the work among tasks in distribution, and an example of each task that is shown."""
        settings = {"length": chosen["length"], "system": chosen.get("system")}
        shown = [self.tasks[name] for name in self.config.leaderboard.shown if name in self.tasks]
        return {
            "analysis": analyse(self.model, method, self.tasks.training, **chosen).as_json(),
            "views": [
                view(self.model, method, task, sample(task, "test", 1, 0)[0], **settings)
                for task in shown
                if method.covers(task)
            ],
        }

    def collected(self, found, errors):
        """One dictionary of everything that was measured, ready for JSON; the lowest loss in distribution first."""
        seconds = self.stages.seconds
        by_method = {name: scores.from_json(one) for name, one in found.items()}
        by_method = {name: by_method[name] for name in sorted(by_method, key=lambda name: self.loss(by_method[name]))}
        compared = results.comparisons(by_method, self.tasks)
        library = self.library("library")
        experts = f"{len(library)} of rank {library.rank}, {', '.join(library.sites)}"
        looked = {name: found[name] for name in by_method if "analysis" in found[name]}
        return {
            "title": "Methods on one library",
            "subtitle": f"{len(self.tasks.training)} tasks in distribution, {len(self.tasks.held_out)} held out, "
            f"{self.config.evaluate.examples or 'all'} examples of each, on {self.model.name}",
            "facts": results.facts(self.config, self.tasks, seconds, Experts=experts),
            "methods": [self.line(name, found[name], compared) for name in by_method]
            + [{"name": name, "error": text} for name, text in errors.items()],
            "paired": results.paired(compared),
            "tasks": [results.task(task, by_method) for task in self.tasks.values()],
            "analysis": [{"name": name, **one["analysis"]} for name, one in looked.items()],
            "routing": [shown for one in looked.values() for shown in one["views"]],
            "stages": results.stages(seconds),
            "config": results.resolved(self.config),
        }

    def loss(self, own):
        """In distribution; infinite for a method that was not scored on all tasks."""
        means = summary(own, list(self.tasks.training))
        return means["loss"] if means else math.inf

    def line(self, name, measured, compared):
        cost = measured["cost"]
        return results.method(name, measured["made_of"]["line"].get("note", ""), compared) | {
            "seconds": {
                "build": measured["build"],
                "evaluate": measured["seconds"],
                "compile": cost["compile"],
                "token": cost["token"],
            },
            "bytes": {key: cost[key] for key in ("experts", "temporary", "peak")},
            "routing_accuracy": measured.get("analysis", {}).get("accuracy"),
        }
