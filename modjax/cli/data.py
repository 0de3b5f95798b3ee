"""`modjax data`: lists the tasks of a source, counts their tokens, writes them to files, fetches data sets."""

import os
import shutil

from absl.flags import DEFINE_integer, DEFINE_multi_string, DEFINE_string, FlagValues

from modjax import arguments, data
from modjax.cli import build, keys, session
from modjax.cli.columns import aligned
from modjax.cli.terminal import on_one_line
from modjax.data import sources
from modjax.data.splits import SPLITS
from modjax.data.statistics import Statistics, statistics, total
from modjax.errors import InputError
from modjax.files import os_errors, read_json, replaceable, write_json
from modjax.models import local
from modjax.progress import each

NEEDS = ()  # flags that must be given
TAKES = ("config",)
EXAMPLE = "modjax data ls --tasks=open48"
ACTIONS = {
    "ls": "lists the tasks with the number of examples in each split",
    "stat": "counts the tokens of a split under a model's tokenizer: in all, of targets, the median and the longest "
    "example, those longer than a row; the rows of the others, and the share of tokens that examples share in them",
    "write": "writes the tasks as a task folder, one file of JSON lines each",
    "fetch": "downloads a data set of the hub to the cache of datasets, and says where it lies",
}
RECORD = "source.json"  # in a written folder: what it was written from


def define_flags(values: FlagValues) -> None:
    text = "as config.tasks: open48, flan, files, the id of a data set on the hub, or a dictionary; wins over --config"
    DEFINE_string("tasks", None, text, values)
    DEFINE_multi_string("only", [], "a pattern of names, families or groups; by default config.only, or all", values)
    DEFINE_string("to", None, "write: the folder to write, new or empty", values)
    DEFINE_string(
        "model", None, "stat: the model whose tokenizer it is; by default config.model, or smollm2-135m", values
    )
    DEFINE_string("split", "train", "stat: train, validation or test", values)
    text = "stat: the tokens of a row; by default config.train.length, or 2048"
    DEFINE_integer("length", None, text, lower_bound=1, flag_values=values)


@session.first_alone
def run(config, workdir, flags) -> None:
    """The source is --tasks, or the tasks of a config."""
    if flags.tasks is None and config is None:
        raise InputError(f"--tasks is missing; expected it or --config, as in {EXAMPLE}")
    {"ls": _ls, "stat": _stat, "write": _write, "fetch": _fetch}[flags.action](config, flags)


def _source(config, flags):
    if flags.tasks is None:
        return build.source(config)
    return keys.literal(flags.tasks) if flags.tasks.startswith("{") else flags.tasks


def _tasks(config, flags) -> data.Tasks:
    only = tuple(flags.only) or (tuple(config.only) if config is not None else ())
    return data.load(_source(config, flags), only=only or None)


def _ls(config, flags) -> None:
    tasks = _tasks(config, flags)
    rows, total = [("task", "family", *SPLITS, "")], dict.fromkeys(SPLITS, 0)
    for task in tasks.values():
        sizes = task.sizes
        total = {split: total[split] + sizes[split] for split in SPLITS}
        held_out = "held out" if task.held_out else ""
        rows.append((on_one_line(task.name), on_one_line(task.family or ""), *_counts(sizes), held_out))
    rows.append((f"{len(tasks)} tasks", "", *_counts(total), ""))
    print("\n".join(aligned(rows, numbers=(2, 3, 4))))


def _counts(sizes):
    return [f"{sizes[split]:,}" for split in SPLITS]


def _stat(config, flags) -> None:
    words = local.tokenizer(flags.model or (config.model if config is not None else local.EMBEDDED))
    length = flags.length or (config.train.length if config is not None else 2048)
    system = config.train.system if config is not None else None
    split = arguments.choice("--split", flags.split, SPLITS)
    tasks = _tasks(config, flags)
    found = {task.name: statistics(words, task, split, length, system) for task in each(tasks.values(), "task")}
    rows = [("task", "examples", "tokens", "targets", "median", "longest", f"> {length}", "rows", "shared")]
    rows += [(on_one_line(name), *_figures(one)) for name, one in found.items()]
    rows.append((f"{len(tasks)} tasks", *_figures(total(found.values()))))
    print("\n".join(aligned(rows, numbers=range(1, len(rows[0])))))


def _figures(found: Statistics) -> list[str]:
    examples, tokens = len(found.lengths_n), int(found.lengths_n.sum())
    counts = (examples, tokens, found.targets, found.median, found.longest, found.too_long, found.rows)
    return [*(f"{count:,}" for count in counts), f"{found.shared / max(found.alone, 1):.0%}"]


def _write(config, flags) -> None:
    if flags.to is None:
        raise InputError("--to is missing; example: modjax data write --tasks=open48 --to=workdir/open48")
    with os_errors(flags.to, "written"):
        target = replaceable(arguments.path("--to", flags.to))
    tasks = _tasks(config, flags)
    if (target / RECORD).is_file() and read_json(target / RECORD) == tasks.fingerprints:
        print(f"{flags.to}: complete")
        return
    with os_errors(flags.to, "written"):
        if target.exists() and any(target.iterdir()):
            raise InputError(f"{flags.to}: is not empty; expected --to=FOLDER, new or empty")
        draft = target.with_name(target.name + ".writing")
        shutil.rmtree(draft, ignore_errors=True)
        sources.write(tasks, draft)
        write_json(draft / RECORD, tasks.fingerprints)
        os.replace(draft, target)
    print(f"{flags.to}: {len(tasks)} tasks")


def _fetch(config, flags) -> None:
    for path in sources.fetch(_source(config, flags)):
        print(path)
