"""A training job of a library known by its sizes alone: its step, compiled for any devices without weights and data."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modjax.data.rows import Rows
from modjax.models import weights
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.parallel import rules
from modjax.train import memory
from modjax.train.lora import lora_recipe
from modjax.train.optim import Lengths
from modjax.train.programs import Idle, Programs, along_members, programs
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings
from modjax.train.step import State


class Arguments(NamedTuple):
    """The arguments of a step, each array as a jax.ShapeDtypeStruct with its sharding."""

    decoder: Decoder
    state: State
    batch: Rows
    keys_E: Any
    lengths: Lengths
    frozen: Any


@dataclasses.dataclass(frozen=True)
class Job:
    """Training of E experts, S at a time, in lockstep. Its mesh may be of devices that this machine does not have.

    A recipe of another kind than LoRA is one of S members; its arrays may be jax.ShapeDtypeStruct. A job has no rows to
    count epochs by: it is one of `settings.steps`.
    """

    config: ModelConfig
    settings: Settings
    experts: int  # E
    targets: int  # target tokens of a row, M
    mesh: jax.sharding.Mesh | None = None
    dtype: Any = jnp.bfloat16  # of the weights of the base
    quantize: str | None = None  # as in `modjax.load`
    recipe: Recipe | None = None  # None: new LoRA experts

    @property
    def slots(self) -> int:
        """Experts in work at a time, S, without idle members that fill the mesh."""
        return min(self.settings.slots or self.experts, self.experts)

    @property
    def waves(self) -> int:
        """How often all slots are filled until every expert has been in one, if none stops early."""
        return -(-self.experts // self.slots)

    @property
    def idle(self) -> Idle:
        """What only fills the mesh."""
        return Idle.of(self.slots, self.settings.batch, self.mesh)

    @property
    def members(self) -> int:
        """Slots and idle members."""
        return self.slots + self.idle.members

    @property
    def rows(self) -> int:
        """The rows of a member in a step, with idle ones."""
        return self.settings.batch + self.idle.rows

    def settled(self, free: int | None) -> "Job":
        """The job with the rows at a time that training chooses, if the settings leave them open; free: see memory."""
        if self.settings.micro:
            return self
        given = self.arguments
        chosen = memory.choice(
            given.decoder, self._recipe, given.state.trained, given.frozen, given.batch, self.settings, self.mesh, free
        )
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **chosen))

    def bytes_per_row(self) -> int:
        """Bytes that one row more holds from the forward to the backward pass; see `memory.held_bytes`."""
        given = self.arguments
        own = given.decoder, self._recipe, given.state.trained, given.frozen, given.batch
        one, two = (memory.held_bytes(*own, rows, self.settings) for rows in (1, 2))
        return two - one

    def traced(self) -> jax.stages.Traced:
        """The training step, as `modjax train` runs it."""
        return self._programs.step.trace(*self.arguments)

    @property
    def arguments(self) -> Arguments:
        """The arguments of the step, in which the rows at a time and recomputation change nothing."""
        settings = dataclasses.replace(self.settings, micro=1, remat=False)
        return _arguments(dataclasses.replace(self, settings=settings))

    def _arguments(self) -> Arguments:
        abstract = weights.abstract(self.config, self.dtype, self.quantize)
        layout = (lambda path, leaf: None) if self.mesh is None else rules.layout(self.mesh)
        leaves = [_like(leaf, layout(path, leaf)) for path, leaf in weights.leaves(abstract).items()]
        state = jax.eval_shape(self._programs.fresh, self._recipe.given)
        return Arguments(
            decoder=jax.tree.unflatten(jax.tree.structure(abstract), leaves),
            state=jax.tree.map(_like, state, along_members(state, self.mesh, self._recipe)),
            batch=jax.tree.map(self._place(rules.of_members(self.members)), self._batch()),
            keys_E=self._keys,
            lengths=Lengths(*[self._place(rules.EXPERT)(jax.ShapeDtypeStruct((self.members,), jnp.int32))] * 2),
            frozen=jax.tree.map(self._place_frozen, self._recipe.frozen),
        )

    @functools.cached_property
    def _recipe(self):
        return self.recipe or lora_recipe(self.config, self.settings, self.members)

    @functools.cached_property
    def _programs(self) -> Programs:
        return programs(self._recipe, self.settings, self._recipe.given, self._keys, self.mesh)

    @property
    def _keys(self):
        keys_E = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), self.members))
        return self._place(rules.EXPERT)(keys_E)

    def _batch(self) -> Rows:
        length, targets = self.settings.length, self.targets
        widths = Rows(length, length, length, targets, targets, targets, 1)
        types = Rows(*[jnp.int32] * len(widths))._replace(weights=jnp.float32)
        before = (self.members, self.rows)
        return jax.tree.map(lambda width, of: jax.ShapeDtypeStruct((*before, width), of), widths, types)

    def _place_frozen(self, leaf):
        return self._place(rules.EXPERT if leaf.ndim == 1 else rules.LORA)(leaf)

    def _place(self, partition):
        return lambda leaf: _like(leaf, None if self.mesh is None else rules.sharding(leaf, partition, self.mesh))


_arguments = functools.lru_cache(maxsize=16)(Job._arguments)


def _like(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
