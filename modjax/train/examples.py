"""The examples that each member of a run learns from, in rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from modjax.data import inputs, loader
from modjax.data.loader import key_of
from modjax.data.rows import Rows, empty, joined, pack
from modjax.data.tasks import Tasks
from modjax.data.token_cache import TokenCache
from modjax.errors import InputError
from modjax.experts.tie import check_widths
from modjax.model import Model
from modjax.models.config import ModelConfig
from modjax.parallel import distributed
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings


def check_settings(config: ModelConfig, name: str, settings: Settings) -> None:
    """Raises InputError unless the length and the sites of the settings fit the model of this config and name."""
    if settings.length > config.reach:
        raise InputError(f"length={settings.length}: expected at most {config.reach}, the context of {name}")
    unknown = [site for site in settings.sites if site not in config.sites]
    if unknown or not settings.sites:
        known = ", ".join(config.sites)
        raise InputError(f"sites {unknown}: expected at least one of {known}, the sites of {name}")
    check_widths(settings.tie, {site: config.sites[site][0] for site in settings.sites})


class MemberRows(NamedTuple):
    """The rows of one split: all that this process trains on, and how many the others have."""

    own: dict[str, Rows]  # of the members whose data this process reads
    n_rows: dict[str, int]  # of all members
    targets: int  # target tokens of every row, M
    length: int  # tokens of every row, T

    def of(self, members: Sequence[str]) -> dict[str, Rows]:
        """The rows of members; one without tokens for a member of another process, and for other names."""
        padding = empty(self.length)
        return {name: self.own.get(name, padding) for name in members}


def member_rows(
    model: Model,
    tasks: Tasks,
    groups: Mapping[str, Sequence[str]],
    recipe: Recipe,
    settings: Settings,
    split: str,
    is_own: Callable[[int], bool] = lambda number: True,
) -> MemberRows:
    """The rows of all examples in a split of each member's tasks.

    is_own: whether this process reads the data of the member of a number.

    Raises InputError, on every process, for a task without examples there, and for examples that do not fit.
    """

    cache = TokenCache(model)

    def packed():
        chosen = [(name, own) for number, (name, own) in enumerate(groups.items()) if is_own(number)]
        return {name: _packed(model, cache, name, tasks.select(own), recipe, settings, split) for name, own in chosen}

    own = distributed.on_each(packed)
    found = [own[name].n_rows if name in own else 0 for name in groups]
    *n_rows, targets = distributed.largest([*found, loader.width(own.values())])
    return MemberRows(own, dict(zip(groups, n_rows, strict=True)), targets, settings.length)


def _packed(model, cache, name, tasks, recipe, settings, split) -> Rows:
    encoded = [_encoded(model, cache, task, split, settings) for task in tasks.values()]
    how = {"length": settings.length, "seed": key_of(name, settings.seed), "split": model.config.original}
    if recipe.by_task:
        return joined([pack(own, task=number, **how) for number, own in enumerate(encoded)])
    return pack([one for own in encoded for one in own], **how)


def _encoded(model, cache, task, split, settings):
    how = {"length": settings.length, "system": settings.system, "too_long": settings.too_long}

    def encoded():
        examples = task.split(split)
        if not examples:
            raise InputError(f"task {task.name!r} has no examples in split {split!r}; expected at least one")
        return inputs.examples(model, task, examples, **how)

    return cache.get(task, {"split": split} | how, encoded)
