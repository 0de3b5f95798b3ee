"""The paired comparison as the page shows it."""

import pytest

from modjax.report.pairs import matrices


def _pairs(**more):
    fields = {
        "names": ["base", "arrow", "spectr"],
        "difference": [[0, 0.5, 0.52], [-0.5, 0, 0.02], [-0.52, -0.02, 0]],
        "low": [[0, 0.4, 0.41], [-0.6, 0, -0.01], [-0.62, -0.05, 0]],
        "high": [[0, 0.6, 0.62], [-0.4, 0, 0.05], [-0.41, 0.01, 0]],
        "below": [[0, 0, 0], [1, 0, 0.1], [1, 0.9, 0]],
    }
    return {"part": "held_out", "metric": "loss", **fields, **more}


def test_colour_marks_differences_whose_interval_does_not_contain_zero():
    (matrix,) = matrices({"paired": [_pairs()]})
    assert [[cell.verdict for cell in row] for row in matrix.rows] == [
        ["same", "worse", "worse"],
        ["better", "same", "unsure"],
        ["better", "unsure", "same"],
    ]
    assert (matrix.group, matrix.best, matrix.close) == ("Held out", "spectr", ["arrow"])


def test_tooltips_give_the_interval():
    (matrix,) = matrices({"paired": [_pairs()]})
    assert matrix.rows[1][0].text == "−0.50"
    assert matrix.rows[1][0].title == "arrow minus base: −0.500, 95 % −0.600 to −0.400; below 0 in 100.0 % of draws"


def test_other_metrics_are_only_in_the_file():
    assert matrices({"paired": [_pairs(metric="rouge_l")]}) == []
    assert matrices({}) == []


@pytest.mark.parametrize("field", ["low", "high"])
def test_missing_ends_of_an_interval_decide_nothing(field):
    pairs = _pairs()
    pairs[field][0][1] = None
    (matrix,) = matrices({"paired": [pairs]})
    assert matrix.rows[0][1].verdict == "unsure"
