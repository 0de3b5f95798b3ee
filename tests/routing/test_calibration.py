"""Prompts to calibrate on; calibration itself is tested with the routers that have it."""

import pytest

from modjax.data.tasks import Example, Task, Tasks
from modjax.errors import InputError
from modjax.routing.calibration import neutral_prompts

TASKS = Tasks([Task(name, tuple(Example(f"{name}{i}", "x", "validation") for i in range(3))) for name in "ab"])


def test_lines_of_a_file(tmp_path):
    path = tmp_path / "neutral.txt"
    path.write_bytes("\ufeffone\u2028line\r\n\r\nanother\x0cline\r\n".encode())
    assert neutral_prompts(TASKS, str(path)) == ["one\u2028line", "another\x0cline"]
    path.write_text("\n")
    with pytest.raises(InputError, match=r"neutral.txt: has no text"):
        neutral_prompts(TASKS, str(path))


def test_a_number_of_prompts_per_task():
    assert neutral_prompts(TASKS, 2) == neutral_prompts(TASKS, "2") == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize("of", ["absent.txt", "²", "-1", ""])
def test_neither_a_file_nor_a_number(of):
    with pytest.raises(InputError, match="expected a text file, or a number of prompts per task"):
        neutral_prompts(TASKS, of)
