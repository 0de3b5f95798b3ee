"""The tiny model and experts of tests/tiny.py."""

from tiny import library, model  # noqa: F401, fixtures
