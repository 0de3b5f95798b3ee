"""The settings of one training run."""

import dataclasses
from typing import Literal, TypedDict, get_args

from modjax.arguments import check_fields, choice, flag, number, optional, seed, text, texts, whole
from modjax.data.tokenize import TooLong
from modjax.errors import InputError
from modjax.experts.tie import check_sites, checked_tie

StopBy = Literal["loss", "rouge_l"]
MOST = 2**31 - 1  # steps are counted with 32 bits


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of training besides the model and the tasks. Defaults follow arXiv 2405.11157.

    NumPy and JAX scalars become Python numbers. Raises InputError for a value that is out of range or not finite.
    """

    steps: int = 1000  # optimizer steps of each expert; `epochs`, if given, says how many instead
    epochs: float = 0.0  # passes of each expert over its own rows, in place of `steps`; 0: by steps
    batch: int = 16  # packed rows per expert and step
    slots: int = 0  # experts in work at a time; the place of one that ends goes to the next; 0: all at once
    micro: int = 0  # rows whose activations are held at a time, over all experts and per device; 0: as memory allows
    length: int = 2048  # tokens per packed row; see `too_long` for longer examples
    rank: int = 4  # R, rank of each LoRA
    alpha: float = 16.0  # each LoRA's update is scaled by alpha / rank
    sites: tuple[str, ...] = ("attn.q", "attn.k", "attn.v", "attn.o")  # linear maps that get a LoRA
    tie: tuple[tuple[str, ...], ...] = ()  # groups of sites that share one A, such as (("attn.q", "attn.k", "attn.v"),)
    shared_a: bool = False  # all experts share one frozen A, and only B is trained
    dropout: float = 0.05  # probability of dropout on the input of each LoRA; examples share that of tokens they share
    learning_rate: float = 1e-4  # the highest rate of the schedule
    warmup: float = 0.06  # fraction of an expert's steps in which its rate rises; then it falls linearly to 0
    weight_decay: float = 0.0  # weight decay of AdamW
    clip: float = 1.0  # largest gradient norm per expert; a larger gradient is scaled down to it
    seed: int = 0  # seed of the initial weights, the order of data and dropout
    system: str | None = None  # system message of each prompt; None leaves it to the chat template
    too_long: TooLong = "error"  # for examples above `length`; "truncate" cuts prompts, "truncate_all" targets too
    evaluate_every: int = 0  # steps, or with `epochs` epochs, between validations of an expert; 0 turns them off
    patience: int = 0  # an expert stops after this many validations without improvement; 0 turns this off
    stop_by: StopBy = "loss"  # validation metric of early stopping: "loss", or "rouge_l" of generated answers
    max_new_tokens: int = 64  # tokens at which answers are cut in validations by stop_by="rouge_l"
    save_every: int = 0  # steps between checkpoints; 0 turns them off
    keep: int = 2  # the newest checkpoints, which are not deleted
    log_every: int = 1  # steps between lines of metrics
    remat: bool = False  # recompute blocks in the backward pass: less memory, a third more time
    loss_chunk: int = 64  # target positions per row whose logits are in memory at one time

    def __post_init__(self):
        counts = ("steps", "batch", "length", "rank", "keep", "log_every", "loss_chunk", "max_new_tokens")
        check_fields(self, counts, whole, least=1, most=MOST)
        check_fields(self, ("slots", "micro", "evaluate_every", "patience", "save_every"), whole, least=0, most=MOST)
        check_fields(self, ("learning_rate", "weight_decay"), number, least=0)
        check_fields(self, ("epochs",), number, least=0, most=MOST)
        check_fields(self, ("alpha",), number)
        check_fields(self, ("clip",), number, above=0)
        check_fields(self, ("dropout",), number, least=0, below=1)
        check_fields(self, ("warmup",), number, least=0, most=1)
        check_fields(self, ("seed",), seed)
        check_fields(self, ("shared_a", "remat"), flag)
        check_fields(self, ("system",), optional(text))
        check_fields(self, ("too_long",), choice, get_args(TooLong))
        check_fields(self, ("stop_by",), choice, get_args(StopBy))
        check_fields(self, ("sites",), texts)
        object.__setattr__(self, "tie", checked_tie(self.tie))
        check_sites(self.tie, self.sites)
        if self.patience and not self.evaluate_every:
            raise InputError(f"patience={self.patience}: expected evaluate_every > 0, as stopping needs validations")
        if self.epochs and self.evaluate_every > self.epochs:
            expected = f"at most epochs={self.epochs:g}, as it counts epochs where these are given"
            raise InputError(f"evaluate_every={self.evaluate_every}: expected {expected}")


class SettingsFields(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments: the type of `**settings` in the functions that train."""

    steps: int
    epochs: float
    batch: int
    slots: int
    micro: int
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
    keep: int
    log_every: int
    remat: bool
    loss_chunk: int
