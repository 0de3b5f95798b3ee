"""A training run that is killed at random instants, again and again, and given the same command: is its result equal?

    python benchmarks/killed_runs.py --kills=50 --out=benchmarks/results/NAME.json
    python benchmarks/killed_runs.py --kills=50 --config.train.slots=2

`modjax train` of four experts on a tiny random model saves every step. One run is left alone. Others get SIGKILL at
random instants, so that they die while they start, compile, train, and write a checkpoint or the library; the same
command then goes on. When a run reaches its end, its library and its metrics must equal those of the first one byte for
byte, and the next run starts in a new folder. Arguments that begin with --config. are given to all runs.

Processes are forked from one that has imported modjax, which only saves the time of the imports.
"""

import contextlib
import importlib
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable

import measuring

ROOT = pathlib.Path(__file__).parents[1]
TASKS, EXAMPLES, WORDS = 4, 24, 60
START, WORK = 10.0, 3.0  # seconds


def arguments(given: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    args, args.settings = parser.parse_known_args(given)
    if args.small:
        args.kills, args.steps = 3, 6
    return args


def job(folder: pathlib.Path) -> None:
    """Writes a tiny model and tasks of random words to a folder."""
    import jax
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from modjax.model import Model
    from modjax.models.config import ModelConfig
    from modjax.models.decoder import Decoder

    words = ["<end>", "<unk>", *(f"w{i}" for i in range(WORDS))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", unk_token="<unk>")
    config = ModelConfig("llama", V=len(words), D=16, N=2, K=1, H=8, F=24, L=2, context=64, rope_dim=8)
    Model("tiny", Decoder.init(config, jax.random.key(0)), tokenizer).save(folder / "model")
    rng = random.Random(0)
    lines = [
        {
            "task": f"task {task}",
            "source": " ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randrange(2, 8))),
            "target": f"w{rng.randrange(WORDS)}",
            "split": "train",
        }
        for task in range(TASKS)
        for _ in range(EXAMPLES)
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def command(args, folder: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    settings = {"steps": args.steps, "batch": 2, "length": 32, "rank": 2, "save_every": 1, "log_every": 1}
    return [
        "modjax",
        "train",
        f"--config={ROOT / 'configs' / 'private.py'}",
        f"--workdir={workdir}",
        f"--config.model={folder / 'model'}",
        f"--config.tasks={folder / 'tasks.jsonl'}",
        *(f"--config.train.{key}={value}" for key, value in settings.items()),
        *args.settings,
    ]


def forked(run: Callable[[], None], log: pathlib.Path) -> int:
    """The id of a process that runs a function, and writes what it prints to a file."""
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(SystemExit), log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            run()
            code = 0
        finally:
            os._exit(code)


def started(words: list[str], log: pathlib.Path) -> int:
    """The id of a process that runs a command of modjax."""
    from modjax.cli import main

    def run():
        sys.argv = words
        main.main()

    return forked(run, log)


def never() -> bool:
    return False


def is_done(child: int, is_due: Callable[[], bool], log: pathlib.Path) -> bool:
    """Whether a process comes to its end before its kill is due. Raises an error if it fails."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended and status:
            raise RuntimeError(f"a run failed; its output ends with\n{log.read_text()[-3000:]}")
        if ended or is_due():
            return bool(ended)
        time.sleep(0.002)


def instant(rng: random.Random, workdir: pathlib.Path) -> Callable[[], bool]:
    """Whether a random time has passed: one in four within START from now, others within WORK from a new checkpoint."""
    if rng.random() < 0.25:
        end = time.monotonic() + rng.uniform(0, START)
        return lambda: time.monotonic() > end
    before, delay, seen = newest(workdir), rng.uniform(0, WORK), []

    def is_due():
        if not seen and newest(workdir) > before:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() > seen[0] + delay

    return is_due


def newest(workdir: pathlib.Path) -> int:
    """The step of the newest checkpoint, 0 if there is none."""
    return max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()), default=0)


def phase(workdir: pathlib.Path) -> str:
    """What a killed run was doing, by what it left."""
    checkpoints = workdir / "checkpoints"
    if any(checkpoints.glob("*.orbax-checkpoint-tmp")):
        return "writing a checkpoint"
    if any(workdir.glob("library*")):
        return "writing the library"
    return "between checkpoints, or starting" if any(checkpoints.glob("*")) else "before the first checkpoint"


def result(workdir: pathlib.Path) -> dict[str, bytes]:
    """The files that a run leaves as its result."""
    paths = [workdir / "metrics.jsonl", *(path for path in (workdir / "library").rglob("*") if path.is_file())]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def soak(args, folder: pathlib.Path) -> dict:
    """Kills runs at random instants; the counts."""
    log, rng = folder / "log", random.Random(args.seed)
    is_done(forked(lambda: job(folder), log), never, log)
    is_done(started(command(args, folder, folder / "alone"), log), never, log)
    expected, phases, runs, unequal, workdir = result(folder / "alone"), Counter(), 0, 0, folder / "0"
    begin = time.monotonic()
    while phases.total() < args.kills or workdir.exists():
        is_due = instant(rng, workdir) if phases.total() < args.kills else never
        child = started(command(args, folder, workdir), log)
        if is_done(child, is_due, log):
            runs, unequal = runs + 1, unequal + (result(workdir) != expected)
            workdir = folder / str(runs)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            phases[phase(workdir)] += 1
    seconds = time.monotonic() - begin
    return {"kills": phases.total(), "while": phases, "runs": runs, "unequal": unequal, "seconds": seconds}


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/cache"  # it, too, is written while a run is killed
        importlib.import_module("modjax.cli.train")  # so that the processes have it

        figures = soak(args, pathlib.Path(folder))
    measuring.report({"steps": args.steps, "settings": args.settings} | figures, ("orbax-checkpoint",), args.out)
    sys.exit(bool(figures["unequal"]))


if __name__ == "__main__":
    main()
