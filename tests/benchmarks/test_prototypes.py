"""The benchmark of prototypes at a small size. No timing is asserted."""

import prototypes
import pytest


def test_both_sides_find_the_same_directions():
    found = prototypes.compare(prototypes.arguments(["--small"]))
    assert found["cosine"]["mean"] > 0.7  # power iterations do not converge where two singular values are close
    assert found["ratio"] == pytest.approx(found["seconds"]["peft"] / found["seconds"]["modjax"])
