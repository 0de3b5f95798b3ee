"""Tables in the formats of the originals, and a cache of `datasets` of each test's own, without a network."""

import pytest


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The empty cache of `datasets`; the hub cannot be reached."""
    import datasets
    import huggingface_hub

    path = tmp_path / "cache of datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(path))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return path


@pytest.fixture
def table():
    """Twelve rows of two tasks."""
    import pyarrow

    rows = [
        {"question": f"what is {i}", "answer": str(i), "topic": "ab"[i % 2], "part": ("train", "dev", "test")[i % 3]}
        for i in range(12)
    ]
    return pyarrow.Table.from_pylist(rows)


@pytest.fixture
def parquet(table, tmp_path):
    import pyarrow.parquet

    path = tmp_path / "sums.parquet"
    pyarrow.parquet.write_table(table, path)
    return path
