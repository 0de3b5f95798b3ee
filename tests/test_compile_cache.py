"""Compiled programs are kept where the user wants them, and are found again."""

import pathlib

import jax

from modjax import compile_cache


def test_programs_are_kept_in_the_users_cache(compiled, monkeypatch):
    monkeypatch.setattr(compile_cache, "LEAST", 0.0)
    compile_cache.keep()
    jax.jit(lambda x: x * 3 + 1)(2.0)
    assert compiled in compile_cache.folder().parents
    assert list(compile_cache.folder().glob("*-cache"))


def test_the_folder_of_the_user_stays(compiled, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    compile_cache.keep()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")


def test_a_cache_that_is_turned_off_stays_off(compiled):
    jax.config.update("jax_enable_compilation_cache", False)
    compile_cache.keep()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_made_is_no_failure(compiled, monkeypatch):
    (compiled / "modjax").write_text("a file")
    compile_cache.keep()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_user_without_a_home_is_no_failure(compiled, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "home", homeless)
    compile_cache.keep()
    assert jax.config.jax_compilation_cache_dir is None
