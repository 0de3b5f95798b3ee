"""Compiled programs are kept where the user wants them, are found again, and leave memory when there are too many."""

import pathlib

import jax

from modjax import compile_cache
from modjax.studies.stages import Stages


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


def test_before_a_stage_programs_are_dropped_if_half_of_the_memory_maps_are_in_use(monkeypatch, tmp_path):
    for name, text in (("MAPS", "a map\n" * 5), ("MOST_MAPS", "10\n")):
        monkeypatch.setattr(compile_cache, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    stages, (program, compiled) = Stages(tmp_path), _program()
    stages.json("first", lambda: program(2.0).item())
    stages.json("second", lambda: program(2.0).item())
    assert len(compiled) == 1
    (tmp_path / "MAPS").write_text("a map\n" * 6)
    assert stages.json("second", lambda: 0) == 7 == program(2.0)  # it is there already, and needs no room
    assert len(compiled) == 1
    assert stages.json("third", lambda: program(2.0).item()) == 7 and len(compiled) == 2


def test_where_nothing_is_known_of_memory_maps_programs_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(compile_cache, "MAPS", tmp_path / "none")
    program, compiled = _program()
    program(2.0)
    compile_cache.trim()
    program(2.0)
    assert len(compiled) == 1


def _program():
    """A program, and a list with one item for each time that it was compiled."""
    compiled = []

    def program(x):
        compiled.append(x)
        return x * 3 + 1

    return jax.jit(program), compiled
