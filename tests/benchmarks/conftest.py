"""One thread for torch and the tiny model that `--small` takes."""

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a tiny random llama, which both sides of a benchmark read."""
    import peer
    import torch

    torch.set_num_threads(1)  # a benchmark takes a thread per core; on so small a model they wait for each other
    return peer.tiny(tmp_path_factory.mktemp("llama"))
