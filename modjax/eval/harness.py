"""A model for lm-evaluation-harness (the package lm-eval, of the extra `eval`): the base model, or a routed library.

    import lm_eval
    from modjax.eval.harness import Harness

    lm_eval.simple_evaluate(model=Harness(model, library, router), tasks=["arc_challenge"])
    lm_eval.simple_evaluate(model="modjax", model_args="pretrained=smollm2-135m", tasks=["arc_challenge"])

Requests are encoded and cut as by lm-eval's own model of transformers, and get the same scores to rounding. What
contexts begin with, such as the question of several answers or the examples of a few-shot prompt, is read once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from absl import logging

from modjax import arguments, generation
from modjax.data import inputs
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.eval.likelihood import scored
from modjax.eval.named import PARTS, parts
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary
from modjax.model import Model
from modjax.progress import progress_bar
from modjax.routing.base import Router
from modjax.routing.oracle import Oracle

try:
    # Registers lm-eval's own models, which lm-eval does by itself only while no other is registered.
    import lm_eval.models  # noqa: F401
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
except ImportError as error:
    raise InputError("modjax.eval.harness needs lm-eval; install it with `pip install modjax[eval]`") from error

OPTIONS = ("batch", "max_length", "max_gen_toks", "seed", "progress")
SAMPLING = ("do_sample", "temperature", "top_k", "top_p")  # with the stop strings and the length, what a task may set


@register_model("modjax")
class Harness(TemplateLM):
    """The base model, or a library with a router, as an `LM` of lm-eval."""

    def __init__(
        self,
        model: Model,
        library: Library | PagedLibrary | None = None,
        router: Router | None = None,
        batch: int = 32,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
        progress: bool = True,
    ):
        """Checks that the parts fit.

        Args:
          model: from `modjax.load`, with a tokenizer.
          library, router: as in `Model.generate`; None is the base model.
          batch: requests computed at once if they share nothing; scores and greedy answers do not depend on it.
          max_length: tokens that the model may read, at most its context, which is the default; longer requests lose
            their beginning.
          max_gen_toks: length at which answers are cut where a task does not say it.
          seed: of sampled answers.
          progress: show bars.

        Raises InputError for parts that do not fit, and for a router that needs a choice per prompt.
        """
        super().__init__()
        generator = arguments.instance("model", model, Model).generator(library, router)
        if library is not None and isinstance(router, Oracle):
            raise InputError("router: the oracle needs the expert of each prompt; expected one that chooses by itself")
        self.modjax, self.library, self.router = model, library, router
        self.tokenizer = model.tokenizer
        self.generator = generator._replace(tokenizer=_WithoutSpecial(model.tokenizer))
        self.batch = arguments.whole("batch", batch, least=1)
        context = model.config.reach
        self.max_length = context if max_length is None else arguments.whole("max_length", max_length, 1, context)
        self.max_gen_toks = arguments.whole("max_gen_toks", max_gen_toks, least=1)
        self.seed, self.progress = arguments.seed("seed", seed), arguments.flag("progress", progress)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> "Harness":
        """The model that lm-eval makes by the name "modjax".

        Args:
          arg_dict: `pretrained`, `library` and `router`, see `modjax.eval.named.parts`; and the rest of `Harness`.
          additional_config: of `simple_evaluate`; batch_size, if it is a number, is `batch`.

        Raises InputError for other arguments, and for parts that do not fit.
        """
        given = dict(arg_dict)
        made = parts({name: given.pop(name) for name in PARTS if name in given})
        size = str((additional_config or {}).get("batch_size"))
        batch = {"batch": int(size)} if size.isdecimal() else {}
        return cls(*made, **batch | arguments.known(given, OPTIONS, "model_args"))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> "Harness":
        """As `create_from_arg_obj`, of "pretrained=smollm2-135m,library=DIR,router=arrow"."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def eot_token_id(self) -> int | None:
        """The end of a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is read as. Raises InputError where the tokenizer has neither beginning nor end."""
        found = self.tokenizer.bos_token_id
        found = self.eot_token_id if found is None else found
        if found is None:
            raise InputError(f"{self.modjax.name}: the tokenizer has no beginning and no end of a text; expected one")
        return found

    @property
    def tokenizer_name(self) -> str:
        """By which lm-eval keeps requests that were encoded with a chat template."""
        return (self.tokenizer.name_or_path or self.modjax.name).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results."""
        experts = [] if self.library is None else list(self.library.names)
        router = None if self.router is None else type(self.router).__name__
        return {
            "model_name": self.modjax.name,
            "model_fingerprint": self.modjax.fingerprint,
            "model_dtype": self.modjax.params.embed[...].dtype.name,
            "experts": experts,
            "router": router,
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The tokens of a text, by default with those that the tokenizer puts around it unless the text has them."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation; without a generation prompt, the last message is one to be continued.

        As by lm-eval's own model, system messages are left out, with a warning, where the template refuses them. Raises
        InputError where the tokenizer has no chat template, and for messages that it refuses.
        """
        if self.tokenizer.chat_template is None:
            raise InputError(f"{self.modjax.name}: the tokenizer has no chat template; expected one")
        how = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return self.tokenizer.apply_chat_template(chat_history, tokenize=False, **how)
        except jinja2.TemplateError as error:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise InputError(f"{self.modjax.name}: the chat template refuses the messages ({error})") from error
            logging.warning("the chat template refuses the system message, which is left out (%s)", error)
            return self.apply_chat_template(others, add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """(log-likelihood of the continuation, whether it is the greedy answer) of each (texts, context, continuation).

        Raises InputError for a continuation without tokens, and for one longer than what the model may read.
        """
        examples = [self._example(i, *tokens) for i, (_, *tokens) in enumerate(requests)]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with progress_bar(len(requests), "request", show=self.progress) as bar:
            for one in scored(self.modjax, examples, self.generator.bound, batch=self.batch):
                found[one.example] = -one.nats, one.greedy
                if requests[one.example][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[one.example][0], found[one.example])
                bar.update()
        return found

    def _example(self, number, context, continuation) -> Encoded:
        """A request, without the beginning that is too long; the last token is predicted and not read."""
        if not 0 < len(continuation) <= self.max_length:
            expected = f"1 to {self.max_length}, which the model may read"
            raise InputError(f"request {number}: its continuation has {len(continuation)} tokens; expected {expected}")
        tokens = np.asarray([*context, *continuation][-(self.max_length + 1) :], np.int32)
        return Encoded(tokens, len(tokens) - len(continuation))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows of `max_length` tokens; see lm-eval."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            given = self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1
            own = [(None, *make_disjoint_window(window)) for window in get_rolling_token_windows(*given)]
            windows += own
            owners += [number] * len(own)
        parts = [nats for nats, _ in self._loglikelihood_tokens(windows)]
        found = np.bincount(owners, parts, len(requests)).tolist()
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answer to each context, up to a stop string of its task or the end of a turn.

        Raises InputError for settings of generation other than stop strings, length, temperature, top_k and top_p.
        """
        answers, alike = [""] * len(requests), {}
        for number, request in enumerate(requests):
            alike.setdefault(self._request(request.args[1]), []).append(number)
        with progress_bar(len(requests), "answer", show=self.progress) as bar:
            for how, numbers in alike.items():
                for piece in self._pieces([requests[number].args[0] for number in numbers], how):
                    number = numbers[piece.prompt]
                    answers[number] += piece.text
                    if piece.last:
                        self.cache_hook.add_partial("generate_until", requests[number].args, answers[number])
                        bar.update()
        return answers

    def _request(self, given) -> generation.Request:
        """The settings of a task's answers."""
        how = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        stop, length = how.pop("until"), how.pop("max_gen_toks")
        arguments.known(how, SAMPLING, "generation_kwargs")
        if length >= self.max_length:
            expected = f"less than {self.max_length}, the tokens that the model may read"
            raise InputError(f"generation_kwargs: max_gen_toks={length}; expected {expected}")
        sampled = {key: how[key] for key in SAMPLING[1:] if how["do_sample"] and key in how}
        stop = tuple(one for one in stop if one)
        return generation.Request(length, stop=stop, seed=self.seed, batch=self.batch, **sampled)

    def _pieces(self, contexts, how: generation.Request) -> Iterator[generation.Piece]:
        """Pieces of the answers to contexts, each without the beginning that would leave no room for the answer."""
        room = self.max_length - how.max_new_tokens
        prompts = [np.asarray(self.tok_encode(context)[-room:], np.int32) for context in contexts]
        for number, prompt in enumerate(prompts):
            inputs.check(self.modjax, f"context {number}", prompt, how.max_new_tokens)
        return generation.pieces(self.generator, prompts, None, how)


class _WithoutSpecial:
    """A tokenizer whose texts have no special tokens, as lm-eval reads answers."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.convert_ids_to_tokens = tokenizer.convert_ids_to_tokens

    def decode(self, tokens: Sequence[int], **how: Any) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, **how)
