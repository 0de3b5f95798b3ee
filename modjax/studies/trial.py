"""One method on some tasks: its scores and the analysis of its router, stages for which it is made once."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from modjax.data.tasks import Tasks
from modjax.eval.analysis import analyse
from modjax.eval.evaluation import evaluate
from modjax.eval.method import Method
from modjax.eval.sample import Sample
from modjax.eval.score import Score, as_json, from_json
from modjax.files import plain
from modjax.studies import methods
from modjax.studies.experiment import Experiment
from modjax.studies.stages import Stages


@dataclasses.dataclass(frozen=True)
class Trial:
    """A method that is not yet made.

    Attributes:
      stage: the name of the stage of its scores.
      line: normalised, see `modjax.studies.methods`.
      tasks, sample, new_tokens: what it is scored on; an adapted method on the held-out ones among `tasks`.
    """

    stages: Stages
    stage: str
    line: Mapping[str, Any]
    experiment: Experiment
    tasks: Tasks
    sample: Sample
    new_tokens: int

    @functools.cached_property
    def method(self) -> Method:
        return methods.make(self.stage, self.line, self.experiment, self.stages.path(self.stage).with_suffix(""))

    @functools.cached_property
    def made_of(self) -> dict[str, Any]:
        """All that the results depend on."""
        scored = {
            "tasks": list(self.tasks),
            "sample": dataclasses.asdict(self.sample),
            "new_tokens": self.new_tokens,
        }
        own = plain({"experiment": self.experiment.made_of(), "scored": scored})
        return methods.made_of(self.line, self.experiment) | own

    def scores(self) -> dict[str, Score]:
        """{task: its score}."""
        return from_json(self.stages.current(self.stage, self.made_of, self._scored))

    def routing(self, stage: str) -> dict[str, Any]:
        """The analysis of the router on the tasks that experts were trained on; see `modjax.eval.analysis`."""
        return self.stages.current(stage, self.made_of, self._analysed)

    def _scored(self):
        method, model = self.method, self.experiment.model
        covered = method.covered(self.tasks)
        if "adapt" in self.line:
            covered = covered.held_out
        return as_json(evaluate(model, covered, method.library, method.router, self.sample, self.new_tokens))

    def _analysed(self):
        return analyse(self.experiment.model, self.method, self.tasks.training, self.sample).as_json()
