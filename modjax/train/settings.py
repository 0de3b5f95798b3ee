"""The settings of one training run."""

import dataclasses
from typing import Literal, TypedDict, get_args

from modjax.data.tokenize import TooLong
from modjax.errors import InputError
from modjax.experts.tie import check_sites

StopBy = Literal["loss", "rouge_l"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings that decide the result of training, given the model and the tasks. Defaults follow the paper."""

    steps: int = 1000
    batch: int = 16  # packed rows per expert and step
    length: int = 2048  # T, tokens per row
    rank: int = 4
    alpha: float = 16.0
    sites: tuple[str, ...] = ("attn.q", "attn.k", "attn.v", "attn.o")
    tie: tuple[tuple[str, ...], ...] = ()  # groups of sites that share one A, such as (("attn.q", "attn.k", "attn.v"),)
    shared_a: bool = False  # one frozen A for all experts; only B is trained
    dropout: float = 0.05  # on the experts' input
    learning_rate: float = 1e-4  # the peak of the schedule
    warmup: float = 0.06  # fraction of the steps; linear decay to 0 after it
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm of one expert
    seed: int = 0
    system: str | None = None  # system message of the chat template; None is the template's default
    too_long: TooLong = "error"  # examples beyond `length`: refuse, or truncate their prompts from the left
    evaluate_every: int = 0  # steps between validations; 0 is never
    patience: int = 0  # validations without improvement until an expert stops; 0 is never
    stop_by: StopBy = "loss"  # the validation measure that must improve: the loss, or Rouge-L of generated answers
    max_new_tokens: int = 64  # of those answers
    save_every: int = 0  # steps between checkpoints; 0 is never
    log_every: int = 1  # steps between lines of metrics
    remat: bool = False  # recompute blocks in the backward pass: less memory, a third more time
    loss_chunk: int = 64  # target positions per row whose logits exist at one time

    def __post_init__(self):
        object.__setattr__(self, "tie", tuple(map(tuple, self.tie)))  # lists have no hash
        check_sites(self.tie, self.sites)
        for name in ("steps", "batch", "length", "rank", "log_every", "loss_chunk", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("evaluate_every", "patience", "save_every", "learning_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 0")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: expected a probability in [0, 1)")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup={self.warmup}: expected a fraction of the steps, in [0, 1]")
        if self.clip <= 0:
            raise InputError(f"clip={self.clip}: expected a positive gradient norm")
        for name, choices in (("too_long", get_args(TooLong)), ("stop_by", get_args(StopBy))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}")
        if self.patience and not self.evaluate_every:
            raise InputError(f"patience={self.patience} needs evaluate_every > 0: stopping is judged on validation")


class SettingsFields(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments: the type of `**settings` in the functions that train."""

    steps: int
    batch: int
    length: int
    rank: int
    alpha: float
    sites: tuple[str, ...]
    tie: tuple[tuple[str, ...], ...]
    shared_a: bool
    dropout: float
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    seed: int
    system: str | None
    too_long: TooLong
    evaluate_every: int
    patience: int
    stop_by: StopBy
    max_new_tokens: int
    save_every: int
    log_every: int
    remat: bool
    loss_chunk: int
