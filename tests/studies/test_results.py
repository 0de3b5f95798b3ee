"""The analysis of a router in a study's results: on the examples that the study scores, truncated in the same way."""

import dataclasses

import pytest

from modjax.data.tasks import Tasks
from modjax.eval import Method, Sample
from modjax.routing import arrow
from modjax.studies import results

SAMPLE = Sample(2, length=32)


@pytest.mark.parametrize("chosen", [{"split": "test"}, {"split": "train", "seed": 3}])
def test_the_examples_that_are_scored_are_analysed(model, library, tasks, chosen):
    """Even if other splits are empty."""
    only = Tasks(dataclasses.replace(task, examples=task.split(chosen["split"])) for task in tasks.values())
    method = Method("arrow", library, arrow(library))
    found = results.routing(model, method, only, ("a", "elsewhere"), dataclasses.replace(SAMPLE, **chosen))
    (view,) = found["views"]
    assert view["text"] in {f"a: {example.source}" for example in only["a"]}
    assert found["analysis"]["examples"] == 2 * len(only.training)


def test_experts_whose_training_failed_are_found_in_memory_and_in_folders(library, tmp_path):
    infos = (dataclasses.replace(library.infos[0], failed=4), *library.infos[1:])
    failed = dataclasses.replace(library, infos=infos)
    failed.save(tmp_path / "library")
    expected = {library.names[0]: 4}
    found = results.failed({"mine": failed, "saved": tmp_path / "library", "sound": library})
    assert found == {"mine": expected, "saved": expected}


def test_long_prompts_are_truncated_as_for_scores(model, library, tasks):
    method = Method("arrow", library, arrow(library))
    whole, cut = (
        results.routing(model, method, tasks, ("a",), Sample(2, length=length, too_long="truncate"))
        for length in (32, 5)
    )
    assert len(cut["views"][0]["tokens"]) == 5 < len(whole["views"][0]["tokens"])
