"""ExpertInfo: the name, tasks, rank and training history of one expert."""

import dataclasses

ORIGIN = ("base", "training", "scores", "dtype", "peft")  # fields that no result of an expert depends on


@dataclasses.dataclass(frozen=True)
class ExpertInfo:
    """Facts about one expert, apart from its arrays."""

    name: str
    tasks: tuple[str, ...]  # the tasks it was trained on
    rank: int
    alpha: float
    base: str = ""  # the base model's name
    family: str = "llama"  # the base model's family, which names the modules in a PEFT folder
    fingerprint: str = ""  # of the base model's weights; "" when unknown
    training: tuple[tuple[str, str | int | float], ...] = ()  # settings, as pairs
    scores: tuple[tuple[str, float], ...] = ()
    # The form of the file that it was read from, so that it can be written in the same form.
    ranks: tuple[tuple[str, tuple[int, ...]], ...] = ()  # {site: rank in each layer, 0 for none}
    dtype: str = "float32"  # of its factors
    peft: str = ""  # its PEFT settings, as JSON
