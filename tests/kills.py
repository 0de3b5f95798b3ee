"""Training runs that fail before a step, as if they were killed there."""

import pytest

from modjax.train import run as training


class Killed(Exception):
    """Raised in place of a signal that ends the process."""


@pytest.fixture
def killed_before(monkeypatch):
    """killed_before(step, run): the run fails before that one of its steps."""

    def kill(step, run):
        one = training.Run._step

        def cut_short(self, batch):
            if self.number + 1 == step:
                raise Killed
            return one(self, batch)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(training.Run, "_step", cut_short)
            run()

    return kill
