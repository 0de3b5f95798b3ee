"""The text table: aligned, within its width, its best values marked."""

import pytest

from modjax import metrics
from modjax.errors import InputError
from modjax.report import numbers, text_table
from modjax.report.table import WIDTH


def _method(name, loss, **rest):
    return {"name": name, "in_distribution": {"loss": loss}} | rest


def _rows(text):
    return [line for line in text.splitlines()[3:] if not line.startswith(("* best", "± half"))]


def test_lines_fit_and_columns_align_on_their_last_digit(results):
    lines = text_table(results).splitlines()
    assert max(map(len, lines)) <= WIDTH
    heading, rows = lines[1], _rows(text_table(results))
    assert len(rows) == len(results["methods"])
    for label in ("Exact", "Rouge-L", "Routing", "Train", "Eval"):
        end = heading.index(label) + len(label)
        for row in rows:
            assert row[end - 1] in "0123456789–", (label, row)
            assert row[end : end + 1] in ("", " ", "*"), (label, row)


def test_group_headings_end_with_their_columns(results):
    groups, heading = text_table(results).splitlines()[:2]
    assert groups.split("  ")[0] == "" and groups.split() == ["In", "distribution", "Held", "out", "Seconds"]
    first, second = (i + len("Rouge-L") for i in range(len(heading)) if heading.startswith("Rouge-L", i))
    assert groups.index("distribution") + len("distribution") == first
    assert groups.index("out") + len("out") == second


def test_long_names_are_cut_to_keep_the_width(results):
    results["methods"][0]["name"] = "x" * 300
    lines = text_table(results).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "xx… " in lines[3]


def test_best_is_marked_by_what_is_shown():
    text = text_table({"methods": [_method("a", 1.00041), _method("b", 1.0004), _method("c", 1.2)]})
    assert [row.endswith("*") for row in _rows(text)] == [True, True, False]


def test_highest_wins_where_higher_is_better():
    methods = [_method(name, None, routing_accuracy=value) for name, value in (("a", 0.2), ("b", 0.9))]
    assert [row.split()[1] for row in _rows(text_table({"methods": methods}))] == ["20.0", "90.0*"]


def test_one_method_alone_is_not_the_best():
    assert "*" not in _rows(text_table({"methods": [_method("a", 1.0)]}))[0]


def test_missing_numbers_are_dashes_and_never_best():
    text = text_table({"methods": [_method("a", float("nan")), _method("b", 2.0), _method("c", 3.0)]})
    assert [row.split() for row in _rows(text)] == [["a", "–"], ["b", "2.000*"], ["c", "3.000"]]


@pytest.mark.parametrize(("value", "text"), [(-0.0004, "0.000"), (-0.0006, "-0.001"), (1.0625, "1.062"), (None, "–")])
def test_a_number_that_is_shown_as_zero_has_no_sign(value, text):
    assert numbers.precise(value) == text


def test_columns_that_do_not_fit_go_to_another_table(compared, monkeypatch):
    more = [metrics.Metric(f"more{i}", f"more {i}", f"More {i}", "words", "lower") for i in range(2)]
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, *more))
    for method in compared["methods"][:-1]:
        for split in ("in_distribution", "held_out"):
            method[split] |= {metric.name: 10.0 for metric in more}
    inside, outside, costs, _ = text_table(compared).split("\n\n")
    assert [part.splitlines()[0].strip() for part in (inside, outside)] == ["In distribution", "Held out"]
    for part in (inside, outside, costs):
        assert max(map(len, part.splitlines())) <= WIDTH and "\nUniform (private) " in part


def test_columns_without_numbers_are_left_out():
    heading = text_table({"methods": [_method("a", 1.0, seconds={"train": None})]}).splitlines()[1]
    assert heading.split() == ["Method", "Loss"]


def test_without_methods_there_is_no_table():
    assert text_table({}) == ""


def test_intervals_follow_their_figures_and_costs_have_their_own_table(compared):
    scores, costs, failed = text_table(compared).split("\n\n")
    assert max(map(len, text_table(compared).splitlines())) <= WIDTH
    heading, *rows = scores.splitlines()[1:]
    end = heading.index("Rouge-L") + len("Rouge-L")
    for row in rows[1:]:
        assert row[end - 4] == "±" or row[:end].rstrip().endswith("–"), row
    assert costs.splitlines()[1].split() == ["Method", "Train", "Build", "Eval", "Compile", "ms/token", "Experts",
                                             "Temporary"]  # fmt: skip
    assert costs.splitlines()[-1].startswith("± half the width")
    assert failed == "PhatGoose failed: expert 'a' was trained on no known task"


def test_experts_whose_training_failed_are_named(compared):
    compared = compared | {"failed": {"private": {"sums": 12}, "mbc": {"cluster 0": 3}}}
    last = text_table(compared).split("\n\n")[-1]
    assert last == "Experts whose training failed: sums (of private, at step 12), cluster 0 (of mbc, at step 3)"


def test_half_widths_are_of_their_own_interval():
    method = _method("a", 1.0)
    method["in_distribution"]["intervals"] = {"loss": [0.9, 1.3], "rouge_l": [0.1, 0.2]}
    assert _rows(text_table({"methods": [method]}))[0] == "a      1.000±0.200"


def test_a_table_of_failures_alone():
    assert text_table({"methods": [{"name": "a", "error": "no\nfile"}]}) == "a failed: no file"


def test_text_in_place_of_a_number_is_named():
    with pytest.raises(InputError, match="'low' in place of a number"):
        text_table({"methods": [_method("a", "low")]})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (42, "42 s"), (59.7, "1 min 00 s"), (7500, "2 h 05 min"), (None, "–")],
)
def test_durations(value, text):
    assert numbers.duration(value) == text


def test_small_times_and_memory():
    assert [numbers.milliseconds(value) for value in (0.00123, 0.25, None)] == ["1.23", "250", "–"]
    assert [numbers.megabytes(value) for value in (8_240_000, 3.1e8, None)] == ["8.2", "310", "–"]
