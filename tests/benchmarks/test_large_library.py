"""The benchmark of large libraries at a small size. No timing is asserted."""

import large_library as benchmark
import numpy as np
import pytest


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    args = benchmark.arguments(["--small", f"--folder={tmp_path_factory.mktemp('large') / 'library'}"])
    args.experts, args.loaded, args.repeats, args.prompts = 20, 10, 1, 2
    made = benchmark.Work(args)
    assert benchmark.write(made, args.folder) == benchmark.write(made, args.folder)
    return made


def test_experts_lie_as_the_parts_of_their_directions_say(work):
    found = work.paged(work.args.folder)
    assert len(found) == 20 and len(set(found.names)) == 20
    prototypes = found.resident(np.dtype("float32"), None).prototypes
    for p_LEI in prototypes.values():
        cosine_LEE = np.abs(np.einsum("lei,lfi->lef", p_LEI, p_LEI))
        assert np.median(cosine_LEE) > 0.3


def test_recall_grows_with_the_candidates(work):
    found = benchmark.of_recall(work)
    for kind in ("prompt", "answer"):
        for shares in found[kind].values():
            assert 0 < shares["4"] <= shares["8"] <= 1 + 1e-6
    best, *others = (shares["8"] for shares in found["prompt"].values())
    assert best >= max(others) - 1e-6  # candidates by the weights themselves


def test_all_parts_give_figures(work):
    assert benchmark.of_make(work)["seconds"] > 0
    loaded = benchmark.of_loaded(work)
    assert loaded["experts"] == 10 and set(loaded["loss"]) == {"base", "loaded", "4", "8"}
    assert benchmark.of_paged(work)["experts_read_a_prompt"] <= 4
    assert set(benchmark.of_search(work)["seconds"]) == {"base", "base_and_scores", "products"}
