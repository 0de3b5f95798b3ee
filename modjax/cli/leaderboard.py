"""`modjax leaderboard`: every method that the config lists on one library, and the page that compares them."""

import dataclasses
import functools
import json
import math
import time
import zlib

from absl.flags import DEFINE_string, FlagValues

from modjax import adapt, report
from modjax.cli import build, session
from modjax.errors import InputError
from modjax.eval.cost import measure
from modjax.eval.evaluation import evaluate
from modjax.eval.sample import Sample
from modjax.eval.score import as_json, from_json, summary
from modjax.experts.library import Library
from modjax.files import read_json, write_json
from modjax.studies import methods as lines
from modjax.studies import results
from modjax.studies.adaptation import Adaptation
from modjax.studies.methods import Stock, libraries_of
from modjax.studies.stages import Stages

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = (
    "modjax leaderboard --config=configs/leaderboard.py:quick,library=workdir/private/library --workdir=workdir/board"
)


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


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
        build.library(config)  # says at once where there is none
        self.paths = {"library": config.library} | config.leaderboard.libraries.to_dict()
        self.models = config.leaderboard.models.to_dict()
        self.methods = self._methods()
        self.model, self.tasks = build.model(config), build.tasks(config)
        self.library = functools.cache(lambda name: Library.load(self.paths[name]))

    def _methods(self):
        """{name: its line}, without those of libraries and models that have no folder.

        Raises InputError for a faulty line.
        """
        found = json.loads(self.config.leaderboard.methods.to_json())
        for name, line in found.items():
            lines.check(name, line, self.paths, self.models, self.config.adapt.to_dict())
        files = [self.stages.path(f"method {name}") for name in found]
        if len(set(files)) < len(files):
            raise InputError(f"config.leaderboard.methods: two of {', '.join(found)} would share a file; rename one")
        return {name: line for name, line in found.items() if all(self.folders(line).values())}

    def folders(self, line) -> dict[str, str]:
        """Of the libraries and the model that a method is made of."""
        models = {line["model"]: self.models[line["model"]]} if "model" in line else {}
        return models | {used: self.paths[used] for used in libraries_of(line)}

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
        made_of = {"line": line, "folders": self.folders(line)}
        if name in self.config.leaderboard.analyse:
            made_of["shown"] = list(self.config.leaderboard.shown)
        path = self.stages.path(f"method {name}")
        if path.exists() and read_json(path)["made_of"] != made_of:
            path.unlink()
        return self.stages.json(f"method {name}", lambda: {"made_of": made_of, **self.measure(name, made_of)})

    def measure(self, name, made_of):
        start, sample, line = time.perf_counter(), Sample.of(self.config.evaluate), made_of["line"]
        method = lines.make(name, line, self.stock(name, made_of))
        model = build.model(self.config, self.models[line["model"]]) if "model" in line else self.model
        built = time.perf_counter() - start
        start, new_tokens = time.perf_counter(), self.config.evaluate.max_new_tokens
        scores = evaluate(model, self.tasks, method.library, method.router, sample, new_tokens)
        measured = {
            "build": built,
            "seconds": time.perf_counter() - start,
            "cost": dataclasses.asdict(measure(model, method, self.tasks, sample)),
            **as_json(scores),
        }
        if "shown" in made_of:
            measured |= results.division(model, method, self.tasks, made_of["shown"], sample)
        return measured

    def stock(self, name, made_of) -> Stock:
        # What another line or library has left is not gone on with; what is shown of a method changes nothing of it.
        own = {key: made_of[key] for key in ("line", "folders")}
        digest = zlib.crc32(json.dumps(own, sort_keys=True).encode())
        folder = self.stages.path(f"{name}-{digest:08x}").with_suffix("")
        return Stock(
            paths=self.paths,
            library=self.library,
            model=self.model,
            tasks=self.tasks.training,
            system=self.config.evaluate.get("system"),
            adaptation=self.config.adapt.to_dict(),
            adapted=functools.partial(self.adapted, folder),
        )

    def adapted(self, folder, options, library):
        """An expert of each held-out task."""
        if not self.tasks.held_out:
            raise InputError("config.tasks holds no task out; expected some to adapt to")
        tasks = adapt.few(self.tasks.held_out, options["examples"], options["validation"])
        settings = self.config.train.to_dict()
        return Adaptation(self.model, tasks, options, settings, self.stages, folder, lambda: library).adapted()

    def collected(self, found, errors):
        """One dictionary of everything that was measured, ready for JSON.

        Methods by their loss in distribution; behind them, by their loss on held-out tasks, those that know no others.
        """
        seconds = self.stages.seconds
        by_method = {name: from_json(one) for name, one in found.items()}
        by_method = {name: by_method[name] for name in sorted(by_method, key=lambda name: self.losses(by_method[name]))}
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

    def losses(self, own):
        """In distribution and held out; infinite for a method that was not scored on all of a part's tasks."""
        means = [summary(own, list(part)) for part in (self.tasks.training, self.tasks.held_out)]
        return [one["loss"] if one else math.inf for one in means]

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
