"""The benchmark of LoraHub's objective on a tiny model. No timing is asserted."""

import lorahub
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_all_sides_compute_one_loss(tiny_folder, tmp_path):
    found = lorahub.compare(lorahub.arguments(["--small", "--repeats=1"]), tiny_folder, tmp_path / "library")
    assert found["loss"]["reload"] == found["loss"]["kept"] == pytest.approx(found["loss"]["modjax"], rel=1e-5)
    assert found["ratio"]["kept"] == pytest.approx(found["seconds"]["kept"][0] / found["seconds"]["modjax"][0])
