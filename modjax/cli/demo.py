"""`modjax demo`: from tasks to a compared, routed model, in stages; a stage that is done is not done again."""

import functools

from absl.flags import DEFINE_string, FlagValues

from modjax import report, routing
from modjax.cli import build, session
from modjax.cli.cluster import as_json as clusters_as_json
from modjax.cli.train import groups
from modjax.cluster import mbc
from modjax.eval import score
from modjax.eval.evaluation import evaluate
from modjax.eval.method import Method
from modjax.eval.sample import Sample
from modjax.files import write_json
from modjax.studies import results
from modjax.studies.stages import Stages
from modjax.train.lora import train_library

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax demo --config=configs/demo.py --workdir=workdir/demo"


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


TRAINED_BY = {"shared": "shared", "private": "private", "MBC": "mbc"}  # the library in a method's name, and its stage


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/{private,mbc,shared}/library, a JSON file a stage, results.json, and the HTML report."""
    job = _Job(config, session.enter(workdir, config))
    found = job.results()
    write_json(job.stages.folder / "results.json", found)
    print(report.text_table(found))
    print(f"report: {report.write(found, flags.report)}")


class _Job:
    """The demo's model and tasks, and its stages in order."""

    def __init__(self, config, folder):
        self.config, self.stages = config, Stages(folder)
        self.model, self.tasks = build.model(config), build.tasks(config)

    def results(self) -> dict:
        """Every stage in order; what is returned is what the report shows."""
        training, n_tasks = self.tasks.training, len(self.tasks.training)
        private = self.train("private", groups("private", training), n_tasks)
        clusters = self.stages.json("clusters", lambda: self.cluster(private))
        experts = self.train("mbc", clusters["groups"], n_tasks)
        shared = self.train("shared", groups("shared", training), n_tasks)
        methods = [
            Method("base", note="the frozen model alone"),
            Method("shared", shared, note="one expert on all tasks"),
            Method("uniform (private)", private, routing.uniform(private), "mean of all experts"),
            Method("Arrow (private)", private, routing.arrow(private), "top 4 a token"),
            Method("uniform (MBC)", experts, routing.uniform(experts), "mean of the cluster experts"),
            Method("Arrow (MBC)", experts, routing.arrow(experts), "top 4 a token"),
            Method("oracle (private)", private, routing.oracle(private), "the task's own expert"),
        ]
        scores = {
            method.name: score.from_json(
                self.stages.json(f"evaluate {method.name}", functools.partial(self.evaluate, method))
            )
            for method in methods
        }
        divisions = self.stages.json("divisions", lambda: self.divisions(methods))
        return self.collected(methods, scores, clusters, divisions)

    def train(self, name, own_groups, n_tasks):
        """Fewer experts get more rows a step, so that every library sees as many rows in all."""
        settings = self.config.train.to_dict()
        rows = settings["batch"] * settings["steps"] * n_tasks
        settings["batch"] = self.config.demo.rows.get(name, settings["batch"])
        settings["steps"] = rows // (settings["batch"] * len(own_groups))
        return self.stages.library(
            name, lambda folder: train_library(self.model, self.tasks, own_groups, folder, **settings)
        )

    def cluster(self, library):
        families = {name: task.family for name, task in self.tasks.items()}
        return clusters_as_json(mbc(library, **self.config.cluster), library, families)

    def evaluate(self, method):
        sample, new_tokens = Sample.of(self.config.evaluate), self.config.evaluate.max_new_tokens
        return score.as_json(evaluate(self.model, self.tasks, method.library, method.router, sample, new_tokens))

    def divisions(self, methods):
        """What the report shows of the routers: how they divide the work, and a few test examples token by token."""
        sample, shown = Sample.of(self.config.evaluate), self.config.demo.shown
        arrows = [method for method in methods if isinstance(method.router, routing.Arrow)]
        return {one.name: results.division(self.model, one, self.tasks, shown, sample) for one in arrows}

    def collected(self, methods, scores, clusters, divisions):
        """One dictionary of everything that was measured, ready for JSON."""
        seconds, train = self.stages.seconds, self.config.train
        compared = results.comparisons(scores, self.tasks)
        labels = dict(zip(clusters["names"], clusters["labels"], strict=True))
        experts = f"rank {train.rank}, alpha {train.alpha:g}, {', '.join(train.sites)}"
        return {
            "title": "A library of experts, and who answers",
            "subtitle": f"{len(self.tasks.training)} tasks in training, {len(self.tasks.held_out)} held out, "
            f"on {self.model.name}",
            "facts": results.facts(self.config, self.tasks, seconds, Experts=experts),
            "methods": [_method(method, compared, divisions.get(method.name), seconds) for method in methods],
            "paired": results.paired(compared),
            "tasks": [results.task(task, scores, labels.get(task.name)) for task in self.tasks.values()],
            "curves": [results.curves(self.stages.folder / name, name) for name in ("private", "mbc", "shared")],
            "similarity": {key: clusters[key] for key in ("names", "matrix", "labels", "families", "adjusted_rand")},
            "analysis": [{"name": name, **found["analysis"]} for name, found in divisions.items()],
            "routing": [shown for found in divisions.values() for shown in found["views"]],
            "stages": results.stages(seconds),
            "config": results.resolved(self.config),
        }


def _method(method, compared, division, seconds):
    trained = next((key for part, key in TRAINED_BY.items() if part in method.name), None)
    return results.method(method.name, method.note, compared) | {
        "seconds": {"train": seconds.get(f"train {trained}"), "evaluate": seconds.get(f"evaluate {method.name}")},
        "routing_accuracy": division["analysis"]["accuracy"] if division else None,
    }
