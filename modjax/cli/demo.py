"""`modjax demo`: from tasks to a compared, routed model, in stages; a stage that is done is not done again."""

import functools

from modjax import report, routing
from modjax.cli import pieces, results, session
from modjax.cli.cluster import as_json as clusters_as_json
from modjax.cli.evaluate import as_json as scores_as_json
from modjax.cli.stages import Stages
from modjax.cli.train import groups
from modjax.eval.evaluate import Method, evaluate, sample
from modjax.eval.traces import routing_accuracy, view
from modjax.experts.cluster import mbc
from modjax.files import write_json
from modjax.train.loop import train_library


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
        self.model, self.tasks = pieces.model(config), pieces.tasks(config)

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
            method.name: self.stages.json(f"evaluate {method.name}", functools.partial(self.evaluate, method))
            for method in methods
        }
        traces = self.stages.json("traces", lambda: self.traces(methods))
        return results.collect(self.config, self.model, self.tasks, methods, scores, clusters, traces, self.stages)

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
        return scores_as_json(*evaluate(self.model, method, self.tasks, **self.config.evaluate))

    def traces(self, methods):
        """What the report shows of the routers: a few test examples token by token, and how often they are right."""
        settings = {key: self.config.evaluate[key] for key in ("length", "system")}
        arrows = [method for method in methods if isinstance(method.router, routing.Arrow)]
        shown = [self.tasks[name] for name in self.config.demo.shown]
        return {
            "views": [
                view(self.model, method, task, sample(task, "test", 1, 0)[0], **settings)
                for method in arrows
                for task in shown
            ],
            "accuracy": {
                method.name: routing_accuracy(
                    self.model, method, self.tasks, self.config.evaluate.examples, self.config.evaluate.seed, **settings
                )
                for method in arrows
            },
        }
