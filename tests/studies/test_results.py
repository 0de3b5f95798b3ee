"""The division of a router in a job's results: over the examples that the job scores, cut as they are there."""

import dataclasses

import pytest

from modjax.data.tasks import Tasks
from modjax.eval import Method, Sample
from modjax.routing import arrow
from modjax.studies import results

SAMPLE = Sample(2, length=32)


@pytest.mark.parametrize("chosen", [{"split": "test"}, {"split": "train", "seed": 3}])
def test_a_division_is_of_the_examples_that_are_scored(model, library, tasks, chosen):
    """Also where other splits have none."""
    only = Tasks(dataclasses.replace(task, examples=task.split(chosen["split"])) for task in tasks.values())
    method = Method("arrow", library, arrow(library))
    found = results.division(model, method, only, ("a", "elsewhere"), dataclasses.replace(SAMPLE, **chosen))
    (view,) = found["views"]
    assert view["text"] in {f"a: {example.source}" for example in only["a"]}
    assert found["analysis"]["examples"] == 2 * len(only.training)


def test_long_prompts_are_cut_in_a_division_as_they_are_where_they_are_scored(model, library, tasks):
    method = Method("arrow", library, arrow(library))
    whole, cut = (
        results.division(model, method, tasks, ("a",), Sample(2, length=length, too_long="truncate"))
        for length in (32, 5)
    )
    assert len(cut["views"][0]["tokens"]) == 5 < len(whole["views"][0]["tokens"])
