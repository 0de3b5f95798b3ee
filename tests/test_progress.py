"""Progress where no terminal is: a line now and then."""

import re

from modjax import progress


def test_lines_come_at_intervals_and_at_the_end(capsys, monkeypatch):
    seconds = iter([0.0, 10.0, 31.0, 31.0, 40.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with progress.progress_bar(8, "step", done=4) as bar:
        bar.update()  # 10 seconds
        bar.set_postfix(loss="0.5", refresh=False)
        bar.update(2)  # 31 seconds
        bar.update()  # 40 seconds
    assert capsys.readouterr().err.splitlines() == [
        "7/8 steps in 31 s, 0.0968 steps per second, loss 0.5",
        "8/8 steps in 50 s, 0.08 steps per second, loss 0.5",
    ]


def test_items_are_counted_in_one_line(capsys):
    assert list(progress.each({"a": 1, "b": 2}.items(), "task")) == [("a", 1), ("b", 2)]
    assert re.fullmatch(r"2/2 tasks in 0 s, \S+ tasks per second\n", capsys.readouterr().err)


def test_nothing_is_shown_where_nothing_is_asked_for_or_done(capsys):
    assert list(progress.each([1, 2], "task", show=False)) == [1, 2]
    with progress.progress_bar(3, "step", done=3):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.progress_bar(3, "step") as bar:
        bar.update()
    assert isinstance(bar, progress.tqdm)
