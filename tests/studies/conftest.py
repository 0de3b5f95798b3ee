"""The tiny model, experts and tasks of tests/tiny.py."""

from tiny import library, model, tasks  # noqa: F401, fixtures
