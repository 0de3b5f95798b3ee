"""The leaderboard: many methods on the same tasks, with intervals, paired differences, costs and routing."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modjax import arguments, digest
from modjax.errors import InputError
from modjax.eval.cost import measure
from modjax.eval.evaluation import evaluate
from modjax.eval.score import as_json, from_json, summary
from modjax.experts.library import Library
from modjax.files import plain
from modjax.model import Model, load
from modjax.parallel.distributed import from_first
from modjax.studies import methods, results
from modjax.studies.experiment import DEFAULT, Experiment
from modjax.studies.stages import Stages


def leaderboard(
    experiment: Experiment,
    lines: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, str] | None = None,
    analyse: Sequence[str] = (),
    shown: Sequence[str] = (),
    load_model: Callable[[str], Model] = load,
) -> dict[str, Any]:
    """Scores every method and compares them; returns results for `modjax.report`.

    Lines may be added and changed between runs with the same workdir: a method is measured again only if its line,
    the content of its libraries, or the experiment has changed. A method that fails is reported with its error; the
    others go on.

    Args:
      experiment: with a workdir, for a JSON file per method.
      lines: {name: method}, see `modjax.studies.methods`. Methods whose library or model has no folder are left out.
      models: {name: folder} of other base models that lines name as "model".
      analyse: the methods whose routers are analysed.
      shown: tasks of which those methods show an example token by token.
      load_model: loads another base model.

    Raises InputError for an invalid line, before anything is measured.
    """
    return _Board(experiment, lines, {} if models is None else models, analyse, shown, load_model).results()


class _Board:
    def __init__(self, experiment, lines, models, analyse, shown, load_model):
        if arguments.instance("experiment", experiment, Experiment).workdir is None:
            raise InputError("a leaderboard keeps what it has measured; expected an experiment with a workdir")
        self.experiment, self.load_model = experiment, load_model
        self.models = arguments.mapping("models", models, "{name: folder}")
        self.analyse, self.shown = arguments.texts("analyse", analyse), list(arguments.texts("shown", shown))
        self.stages = Stages(experiment.workdir)
        self.lines = self._checked(lines)

    def _checked(self, lines) -> dict[str, dict[str, Any]]:
        """The normalised lines, without those of libraries and models that have no folder."""
        found = {}
        for name, line in arguments.mapping("lines", lines, "{name: method}").items():
            where = f"methods.{arguments.title('method name', name)}"
            line = methods.normalised(line, where)
            if "model" in line and (line["model"] not in self.models or set(line) - {"model", "note"}):
                known = ", ".join(self.models) or "none"
                raise InputError(f"{where}: 'model' can only be combined with 'note'; known models: {known}")
            if all(self.sources(line)):
                methods.check(line, self.experiment, where)
                found[name] = line
        return found

    def sources(self, line) -> list[Library | str | pathlib.Path]:
        """The libraries and the model of a line, each by its folder unless it is in memory; "" for a missing one."""
        own = [self.experiment.libraries.get(name, name) for name in methods.libraries_of(line)]
        return [*own, self.models[line["model"]]] if "model" in line else own

    def made_of(self, line) -> dict[str, Any]:
        """The inputs of a method's measures, as plain data; equal in all processes."""
        path = pathlib.Path(self.models[line["model"]]) if "model" in line else None
        other = from_first(lambda: digest.of_large(path)) if path else None
        return methods.made_of(line, self.experiment) | {"other": other, "experiment": self.common}

    @functools.cached_property
    def common(self) -> dict[str, Any]:
        return plain(self.experiment.made_of())

    def results(self) -> dict[str, Any]:
        found, errors = {}, {}
        for name, line in self.lines.items():
            try:
                found[name] = self.measured(name, line)
            except InputError as error:
                print(f"method {name}: {error}", flush=True)
                errors[name] = str(error)
        return self.collected(found, errors)

    def measured(self, name, line) -> dict[str, Any]:
        """The measures of a method, kept until its inputs change."""
        made_of = self.made_of(line)
        if name in self.analyse:
            made_of["shown"] = self.shown
        return self.stages.current(f"method {name}", made_of, lambda: self.measure(name, line))

    def measure(self, name, line) -> dict[str, Any]:
        experiment, start = self.experiment, time.perf_counter()
        method = methods.make(name, line, experiment, self.folder(name, line))
        model = self.load_model(self.models[line["model"]]) if "model" in line else experiment.model
        built, start = time.perf_counter() - start, time.perf_counter()
        tasks, sample = experiment.tasks, experiment.sample
        scores = evaluate(model, tasks, method.library, method.router, sample, experiment.max_new_tokens)
        measured = {
            "build": built,
            "seconds": time.perf_counter() - start,
            "cost": dataclasses.asdict(measure(model, method, tasks, sample)),
            **as_json(scores),
        }
        if name in self.analyse:
            measured |= results.routing(model, method, tasks, self.shown, sample)
        return measured

    def folder(self, name, line) -> pathlib.Path:
        """The folder for a method's own work: another one if its line or its libraries change."""
        return self.stages.path(f"{name}-{digest.of_json(self.made_of(line))}").with_suffix("")

    def collected(self, found, errors) -> dict[str, Any]:
        """Methods by their loss in distribution; after them, by held-out loss, those scored only on held-out tasks."""
        tasks, seconds = self.experiment.tasks, self.stages.seconds
        scores = {name: from_json(one) for name, one in found.items()}
        scores = dict(sorted(scores.items(), key=lambda item: self.losses(item[1])))
        compared = results.comparisons(scores, tasks)
        analysed = {name: found[name] for name in scores if "analysis" in found[name]}
        examples = self.experiment.sample.examples or "all"
        return {
            "title": "Methods on one library",
            "subtitle": f"{len(tasks.training)} tasks in distribution, {len(tasks.held_out)} held out, "
            f"{examples} examples of each, on {self.experiment.model.name}",
            "facts": results.facts(self.experiment.model, tasks, seconds, **self.experts()),
            "methods": [_row(name, found[name], compared) for name in scores]
            + [{"name": name, "error": text} for name, text in errors.items()],
            "failed": results.failed(self.libraries()),
            "paired": results.paired(compared),
            "tasks": [results.task(task, scores) for task in tasks.values()],
            "analysis": [{"name": name, **one["analysis"]} for name, one in analysed.items()],
            "routing": [shown for one in analysed.values() for shown in one["views"]],
            "stages": results.stages(seconds),
        }

    def experts(self) -> dict[str, str]:
        """The line of the headline about the library that methods have by default."""
        if DEFAULT not in self.experiment.libraries:
            return {}
        library = self.experiment.library(DEFAULT)
        return {"Experts": f"{len(library)} of rank {library.rank}, {', '.join(library.sites)}"}

    def libraries(self) -> dict[str, Library | str | pathlib.Path]:
        """The libraries of all lines."""
        names = dict.fromkeys(name for line in self.lines.values() for name in methods.libraries_of(line))
        return {name: self.experiment.libraries.get(name, name) for name in names}

    def losses(self, scores) -> list[float]:
        """In distribution and held out; infinite for a method that was not scored on all tasks of a part."""
        parts = (self.experiment.tasks.training, self.experiment.tasks.held_out)
        means = [summary(scores, list(part)) for part in parts]
        return [one["loss"] if one else math.inf for one in means]


def _row(name, measured, compared) -> dict[str, Any]:
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
