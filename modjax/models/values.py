"""Checked access to the keys of a config.json; errors name the file, the key, the value found and what was expected."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from modjax.errors import InputError

NONE = re.compile(r"(?!)")  # matches nothing


class Values:
    """The keys of one file. Absent keys have their defaults; so have null ones, unless the key is nullable."""

    def __init__(self, found: Mapping[str, Any], defaults: Mapping[str, Any], nullable: Collection[str], where: str):
        given = {key: value for key, value in found.items() if value is not None or key in nullable}
        self.values = {**defaults, **given}
        self.given, self.nullable, self.where = given, nullable, where

    def __getitem__(self, key: str) -> Any:
        return self.values.get(key)

    def error(self, key: str, expected: str) -> InputError:
        """The error to raise for the value of this key."""
        return InputError(f"{self.where}: {key} is {self[key]!r}; expected {expected}")

    def require(self, key: str, only: Any) -> None:
        """Raises InputError if the key is present with a value other than `only`."""
        if self.values.get(key, only) != only:
            raise InputError(f"{self.where}: {key} = {self[key]!r} is not supported; expected {only!r}")

    def warn_of_unknown(self, known: Collection[str], ignored: re.Pattern[str] = NONE) -> None:
        """Warns about keys of the file that are not in `known` and that `ignored` does not match.

        Keys that are false, 0 or empty are left out: they turn something off that modjax does not have.
        """
        unknown = sorted(key for key, value in self.given.items() if value and key not in known)
        unknown = [key for key in unknown if not ignored.fullmatch(key)]
        if unknown:
            warnings.warn(
                f"{self.where}: {', '.join(unknown)}: not known to modjax and ignored; "
                "check that they do not change what the model computes",
                stacklevel=2,
            )

    def size(self, key: str) -> int | None:
        """A positive whole number, or None for a nullable key that is null."""
        value = self[key]
        if value is None and key in self.nullable:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "a positive whole number")
        return value

    def count(self, key: str) -> int:
        """A whole number, 0 or more."""
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(key, "a whole number, 0 or more")
        return value

    def number(self, key: str) -> float | None:
        """A positive number, or None for a nullable key that is null."""
        value = self[key]
        if value is None and key in self.nullable:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(key, "a positive number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or False."""
        value = self[key]
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` positive numbers."""
        value = self[key]
        if not isinstance(value, list | tuple) or len(value) != count:
            raise self.error(key, f"a list of {count} positive numbers")
        one_by_one = Values(dict(enumerate(value)), {}, (), f"{self.where}: {key}")
        return tuple(one_by_one.number(i) for i in range(count))

    def inner(self, key: str) -> dict[str, Any]:
        """A nested object without its null entries; {} if the key is absent or null."""
        value = self[key] or {}
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return {name: one for name, one in value.items() if one is not None}
