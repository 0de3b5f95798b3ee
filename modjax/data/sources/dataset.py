"""Data sets of Hugging Face `datasets`: by their id on the hub, or local files, with the columns that are read.

    modjax.data.load("owner/name")
    modjax.data.load({"id": "owner/name", "columns": {"source": "{passage}\\n{question}?", "target": "answer"}})
    modjax.data.load({"files": "data/*.parquet", "columns": {"task": "topic"}, "most": 1000})

A data set of the hub is downloaded once, and read without a network from then on, until it is fetched again. Its rows,
and those of local files, lie in Arrow files in the cache of `datasets`, which are mapped into memory.
"""

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modjax import arguments
from modjax.data import table
from modjax.data.columns import Columns
from modjax.data.sources import table_files
from modjax.data.splits import SPLITS
from modjax.data.table import SPLIT_NAMES, Choice
from modjax.data.tasks import Task
from modjax.errors import InputError
from modjax.files import os_errors

BATCH = 1000  # rows of a stream that are read at a time


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is read of which data set."""

    id: str = ""  # of a data set on the hub, as owner/name
    subset: str | None = None  # one of the data set's configurations
    revision: str | None = None  # a branch, tag or commit of the hub
    files: Any = None  # local files: a path or shell pattern, a list of them, or {split: such}
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)  # parts of `Columns`; others by usual names
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {split: the data set's name for it}
    name: str = ""  # of the task, if no column names tasks; by default that of the data set
    where: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)  # {column: values to keep}
    most: int = 0  # at most this many examples of a task, drawn with the seed; 0: all
    seed: int = 42
    rows: int = 0  # only the first rows of each part; 0: all
    streaming: bool = False  # nothing is kept on disk; the rows that are read are in memory

    def __post_init__(self):
        arguments.check_fields(self, ("id", "name"), arguments.text)
        arguments.check_fields(self, ("subset", "revision"), arguments.optional(arguments.title))
        arguments.check_fields(self, ("most", "rows"), arguments.whole, least=0)
        arguments.check_fields(self, ("seed",), arguments.seed)
        arguments.check_fields(self, ("streaming",), arguments.flag)
        arguments.check_fields(self, ("columns", "splits", "where"), arguments.mapping, "a dictionary")
        for column, values in self.where.items():
            self.where[arguments.title("where: a column", column)] = arguments.items(
                f"where[{column!r}]", values, "a list of values"
            )
        if bool(self.id) == (self.files is not None):
            given = arguments.shown(self.files)
            raise InputError(f"tasks: id={arguments.shown(self.id)} and files={given}: expected one of them")
        if self.files is not None:
            with os_errors("files", "read"):
                object.__setattr__(self, "files", table_files.found(self.files))

    @property
    def place(self) -> str:
        """The data set's name in errors."""
        return self.id or table_files.listed(self.files)[0]

    @functools.cached_property
    def content(self) -> str:
        """The digest of the files, each of which is read."""
        return table_files.content(self.files)

    @property
    def title(self) -> str:
        """The name of its task where no column names tasks."""
        return self.name or self.subset or self.id.rpartition("/")[2] or table_files.title(self.files)


def is_id(name: Any) -> bool:
    """Whether a name may be that of a data set on the hub."""
    return isinstance(name, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None


def read(given: Mapping[str, Any], wanted: Callable[..., bool], named: Callable[[str], str | None]) -> Iterator[Task]:
    """The tasks of a data set.

    Args:
      given: fields of `Settings`.
      named: the name of a task that has this one in the data set; None leaves it out.

    Raises InputError for unknown settings and columns, and for a data set that is neither in the cache nor to be had.
    """
    settings = arguments.made(Settings, given)
    parts = _parts(settings)
    there = next(iter(parts.values())).column_names
    columns = Columns.of(settings.columns, there, settings.place)
    for column in settings.where:
        if column not in there:
            raise InputError(f"{settings.place}: where has no column {column!r}; its columns are {', '.join(there)}")
    needed = {*columns.names, *(name.partition(".")[0] for name in columns.names), *settings.where}
    parts = {split: _prepared(part, [name for name in there if name in needed]) for split, part in parts.items()}
    choice = Choice(settings.where, settings.most, settings.seed)

    def own_name(name):
        found = named(settings.title if columns.task is None else name)
        return found if found is not None and wanted(found) else None

    yield from table.tasks(settings.place, parts, columns, choice, _origin(settings, parts), own_name)


def fetch(given: Mapping[str, Any]) -> list[str]:
    """Downloads what the hub has of the data set that `given` names; the folders in which it lies in the cache."""
    loaded = _loaded(dataclasses.replace(arguments.made(Settings, given), streaming=False))
    return sorted({os.path.dirname(file["filename"]) for part in loaded.values() for file in part.cache_files})


def _prepared(part, columns):
    """The columns of a part; those within others are columns too."""
    chosen = part.select_columns(columns)
    return chosen.flatten() if any(isinstance(one, dict) for one in chosen.features.values()) else chosen


def _origin(settings, parts) -> list[str]:
    """What identifies the content: the files, or what `datasets` has of a revision of the hub."""
    if settings.files and not settings.streaming:
        return [settings.content]
    return [part._fingerprint for part in parts.values()]


def _parts(settings: Settings) -> dict[str | None, Any]:
    """{split: the rows of that split}; None for rows whose split goes by their place.

    These are those of a data set that has one part, for training or of another name.
    """
    loaded = _cached(settings) or _loaded(settings)
    known = {SPLIT_NAMES[name]: name for name in loaded if name in SPLIT_NAMES}
    names = settings.splits or known
    if not settings.splits and len(loaded) == 1 and (not known or settings.id and "train" in known):
        names = {None: next(iter(loaded))}
    for split, name in names.items():
        arguments.optional(arguments.choice)("splits: the name of a split", split, SPLITS)
        arguments.choice(f"{settings.place}: split {split!r}", name, loaded)
    if not names:
        raise InputError(f"{settings.place}: its parts are {', '.join(loaded)}; expected splits={{'train': PART}}")
    return {split: _first(loaded[name], settings) for split, name in names.items()}


def _first(part, settings):
    """The rows of a part that are read; those of a stream in memory."""
    import datasets

    if not settings.streaming:
        return part.select(range(min(settings.rows, len(part)))) if settings.rows else part
    import pyarrow

    stream = part.take(settings.rows) if settings.rows else part
    batches = list(stream.with_format("arrow").iter(batch_size=BATCH))
    if not batches:
        raise InputError(f"{settings.place}: has no rows; expected at least one")
    info = datasets.DatasetInfo(features=part.features)
    return datasets.Dataset(pyarrow.concat_tables(batches), info=info)


def _loaded(settings: Settings):
    """The data set as `datasets` gives it: {name of a part: its rows}."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    named = {"streaming": settings.streaming}
    try:
        if settings.id:
            return datasets.load_dataset(settings.id, settings.subset, revision=settings.revision, **named)
        # The digest of the files names the copy in the cache, so that other content gets another copy.
        kind = table_files.kind(settings.files)
        return datasets.load_dataset(kind, settings.content, data_files=settings.files, **named)
    except Exception as error:  # readers of many formats and a client of the hub, which may raise anything
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        of_hub = "a path, or a data set that is in the cache of datasets, or on the hub with a network"
        expected = of_hub if settings.id else "a table"
        raise InputError(f"{settings.place}: cannot be loaded ({reason}); expected {expected}") from error


def _cached(settings: Settings):
    """The newest copy of a data set of the hub in the cache of `datasets`, without asking the hub; None without one."""
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    if not settings.id or settings.revision or settings.streaming:
        return None
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()  # not to be told on each use that this is the copy in the cache
    try:
        name = settings.id.rpartition("/")[2]
        config = settings.subset or "default"
        return Cache(None, name, config, "auto", "auto", repo_id=settings.id).as_dataset()
    except (OSError, ValueError):
        return None
    finally:
        datasets.logging.set_verbosity(verbosity)
