"""The ten zero-shot benchmarks of one method, kept part by part in a folder, so that an interrupted run goes on."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from modjax import arguments, compile_cache, digest
from modjax.claim import claim
from modjax.eval.benchmarks import records, scoring
from modjax.eval.benchmarks.benchmark import Benchmark
from modjax.eval.benchmarks.catalogue import BENCHMARKS
from modjax.eval.benchmarks.result import Result, joined, mean
from modjax.eval.benchmarks.scoring import BenchmarkFields, BenchmarkSettings
from modjax.eval.method import Method
from modjax.files import own_name, plain, read_json, write_json
from modjax.parallel.distributed import from_first
from modjax.progress import progress_bar
from modjax.studies import methods
from modjax.studies.experiment import Experiment


def benchmarks(
    experiment: Experiment,
    method: Mapping[str, Any],
    data: str | os.PathLike | None = None,
    names: Iterable[str] = (),
    progress: bool = True,
    **settings: Unpack[BenchmarkFields],
) -> dict[str, Result]:
    """Scores a method on benchmarks, {name: result}, and leaves them in the experiment's workdir.

    There, each benchmark has a folder of its results, and benchmarks.json has the means of all. What was measured is
    used again as long as the model, the method, the questions and the version of the benchmark are the same; benchmarks
    may be added from run to run.

    Args:
      experiment: with a workdir; its tasks are read only by routers and adaptation.
      method: {"library": ..., "router": ...}, see `modjax.studies.methods`; {"library": ""} is the base model.
      data: a folder with a file or a folder per benchmark, by name; None reads the Hugging Face hub.
      names: of `modjax.eval.BENCHMARKS`; () is all ten.
      progress: show bars.
      settings: the fields of `modjax.eval.BenchmarkSettings`: examples, seed, chat, execute, batch, limits.

    Raises InputError for unknown names, records that cannot be read, and benchmarks of programs without
    `execute`, before anything is scored; and for a folder with results of another model, method or questions.
    """
    folder = arguments.instance("experiment", experiment, Experiment).workdir
    if folder is None:
        raise arguments.refused("experiment", experiment, "an experiment with a workdir, which results are kept in")
    data = arguments.optional(arguments.path)("data", data)
    chosen = [scoring.named(name) for name in arguments.texts("names", names) or BENCHMARKS]
    line, progress = methods.normalised(method), arguments.flag("progress", progress)
    methods.check(line, experiment)
    given = arguments.made(BenchmarkSettings, settings)
    for own in chosen:
        given.check(own)
    asked = {own.name: _questions(own, data, given) for own in chosen}
    made_of = _made_of(line, experiment)
    for own in chosen:
        _claim(folder / own.name, own, asked[own.name], given, made_of)
    made = methods.make("evaluated", line, experiment)
    found = {own.name: _scored(folder, own, asked[own.name], experiment, made, given, progress) for own in chosen}
    from_first(lambda: write_json(folder / "benchmarks.json", summary(found)))
    return found


def folder_of(folder: pathlib.Path, name: str, line: Mapping[str, Any]) -> pathlib.Path:
    """The folder of a method's benchmarks within that of one seed of a study."""
    return folder / "benchmarks" / f"{own_name(name)}-{digest.of_json(line)}"


def kept(folder: pathlib.Path) -> dict[str, Result]:
    """{benchmark: its result} that `benchmarks` has left in a folder, in alphabetical order."""
    folders = sorted({file.parent for file in folder.glob("*/part-*.json")})
    return {own.name: joined(_read(sorted(own.glob("part-*.json")))) for own in folders}


def summary(results: Mapping[str, Result]) -> dict[str, Any]:
    """The unweighted mean of the headlines, and of each benchmark `Result.as_json` without single answers."""
    whole = {name: one.as_json() for name, one in results.items()}
    for one in whole.values():
        del one["each"]
    return {"mean": mean(results), "benchmarks": whole}


def _questions(own: Benchmark, data: pathlib.Path | None, given: BenchmarkSettings) -> list[Any]:
    path = None if data is None else records.locate(data, own.name)
    return own.sample(own.questions(path), given.examples, given.seed)


def _made_of(line, experiment) -> dict[str, Any]:
    """The inputs of the method's answers; of the base model alone, which reads no tasks, its own."""
    routed = methods.libraries_of(line) or "adapt" in line
    common = experiment.made_of() if routed else {"model": experiment.model.content}
    return methods.made_of(line, experiment) | plain(common)


def _claim(folder, own, questions, given, made_of) -> None:
    """Ties a benchmark's folder to what its results are made of."""
    inputs = {
        **{"version": own.version, "questions": digest.of_json(questions), "chat": given.chat, "part": own.part},
        **({"limits": dataclasses.asdict(given.limits)} if own.runs_code else {}),
        **made_of,
    }
    from_first(lambda: claim(folder / "inputs.json", inputs, sorted(folder.glob("part-*.json"))))


def _scored(folder, own, questions, experiment: Experiment, made: Method, given, progress) -> Result:
    """The result of a benchmark: the parts that an earlier run has left, and then the others."""
    compile_cache.trim()
    files = [folder / own.name / f"part-{number:04}.json" for number in range(-(-len(questions) // own.part))]
    done = from_first(lambda: next((number for number, file in enumerate(files) if not file.exists()), len(files)))
    found = _read(files[:done])
    with progress_bar(len(questions), f"{own.name} question", sum(one.examples for one in found), progress) as bar:
        later = scoring.parts(experiment.model, made, own, questions, given, done)
        for file, part in zip(files[done:], later, strict=True):
            _write(file, part)
            found.append(part)
            bar.update(part.examples)
    return joined(found)


def _read(files) -> list[Result]:
    return [Result.from_json(one) for one in from_first(lambda: [read_json(file) for file in files])]


def _write(file, part):
    from_first(lambda: write_json(file, part.as_json()))
