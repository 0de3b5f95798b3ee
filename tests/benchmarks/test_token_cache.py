"""The benchmark of kept token ids on a few tasks. No timing is asserted."""

import token_cache
from tiny import model, tasks  # noqa: F401, fixtures


def test_both_times_give_the_same_bytes(model, tasks, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MODJAX_TOKEN_CACHE", "false")
    words = token_cache.Words("tiny", model.tokenizer, model.config)
    found = token_cache.compared(words, tasks, length=32)
    assert all(found[name]["same_bytes"] for name in ("training rows", "samples")) and found["kept_bytes"] > 0
    made = [run() for run in token_cache.jobs(words, tasks, 32).values()]
    assert [len(made[0]), len(made[1])] == [4, 40] and len(token_cache._bytes(made[1])) == 40
