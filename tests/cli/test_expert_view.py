import numpy as np
import pytest

from modjax.cli.expert_view import first_experts, view
from modjax.cli.terminal import Terminal

NAMES = ("red", "green", "blue")
FIRST = [0, 0, 2, 0]  # of each token, in the mean of two layers
TEXTS = ["one", " two", "\nthree", " four"]


@pytest.fixture
def weights_LnE():
    mean_nE = 0.1 + 0.7 * np.eye(3)[FIRST]
    tilt_nE = np.array([[0.1, 0.0, -0.1]]).repeat(4, axis=0)
    return np.stack([mean_nE + tilt_nE, mean_nE - tilt_nE])


@pytest.fixture
def terminal(monkeypatch):
    """A function that gives a terminal with or without colours."""

    def make(coloured):
        made = Terminal()
        made.coloured = coloured
        return made

    return make


def test_first_experts(weights_LnE):
    np.testing.assert_array_equal(first_experts(weights_LnE), FIRST)
    np.testing.assert_array_equal(first_experts(np.full((2, 3, 4), 0.25)), [-1, -1, -1])


def test_a_pipe_gets_numbers(terminal, weights_LnE):
    lines = view(terminal(False), TEXTS, weights_LnE, NAMES)
    assert lines[:2] == ["  one two[1]", "  three[2] four[1]"]
    assert [line.split()[:2] for line in lines[3:]] == [["1", "red"], ["2", "blue"], ["3", "green"]]
    assert lines[3].split()[-2:] == ["62%", "75%"]
    assert "\033" not in "".join(lines)


def test_a_terminal_gets_colours(terminal, weights_LnE):
    lines = view(terminal(True), TEXTS, weights_LnE, NAMES)
    assert lines[0] == "  \033[38;5;33mone two\033[0m"
    assert lines[1] == "  \033[38;5;208mthree\033[0m\033[38;5;33m four\033[0m"


def test_experts_that_all_count_the_same(terminal):
    assert view(terminal(False), TEXTS, np.full((2, 4, 3), 1 / 3), NAMES) == ["  every token used all 3 experts alike"]


def test_of_many_experts_the_most_used_are_shown(terminal):
    weights_LnE = np.full((1, 1, 20), 0.04)
    weights_LnE[0, 0, 13] = 0.24
    lines = view(terminal(False), ["word"], weights_LnE, tuple(f"expert {i}" for i in range(20)))
    assert "expert 13" in lines[2] and lines[-1].split() == ["and", "12", "more,", "48%", "of", "the", "weight"]
