"""Scores of single answers."""

import pytest

from modjax.metrics import exact_match, rouge_l


def test_exact_match_counts_case_and_drops_white_space():
    assert exact_match(" Paris\n", ["Rome", "Paris"]) == 1
    assert exact_match("paris", ["Paris"]) == 0


def test_rouge_l_is_the_best_over_the_answers():
    # "the cat" in common: precision 2/3, recall 2/4
    assert rouge_l("the cat sat", ["no", "the cat ran off"]) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def test_rouge_l_stems():
    assert rouge_l("the cats", ["the cat"]) == 1


def test_equal_answers_score_one_even_without_letters():
    assert rouge_l("+", ["+"]) == 1
    assert rouge_l("+", ["-"]) == 0
