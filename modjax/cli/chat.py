"""`modjax chat`: a conversation with a model, or with a library under a router."""

import time

import numpy as np

from modjax.cli import build, session
from modjax.cli.expert_view import view
from modjax.cli.terminal import Terminal
from modjax.data.tokenize import Encoded
from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.eval import Method
from modjax.eval.traces import routing_weights
from modjax.models.answer import Answer
from modjax.routing.oracle import Oracle
from modjax.studies import catalogue

NEEDS = ("config",)  # flags that must be given
EXAMPLE = "modjax chat --config=configs/chat.py:library=workdir/private/library"
COMMANDS = {
    "/experts": "show or hide which experts the tokens of an answer went to",
    "/router": "NAME [EXPERT]: route by another router; the oracle needs an expert; none is the base model",
    "/system": "TEXT: the system message, in a conversation that begins anew; without text the template's own",
    "/reset": "forget what was said",
    "/help": "this list",
    "/quit": "leave",
}
EVERY = 2  # tokens between two looks at the text: it flows, and costs little


def run(config, workdir, flags) -> None:
    """Reads lines, answers each in the light of all before it, and obeys those that begin with a slash."""
    if workdir:
        session.enter(workdir, config)
    terminal = Terminal()
    chat = Chat(config, terminal)
    terminal.aside(f"{chat.described()}. /help lists the commands.")
    while not chat.left and (line := terminal.ask()) is not None:
        if line.strip():
            chat.hear(line.strip())


class Chat:
    """A model, what it answers with, and what was said so far."""

    def __init__(self, config, terminal: Terminal):
        self.config, self.terminal = config, terminal
        self.model = build.model(config)
        self.library = build.library(config) if config.library else None
        self.settings = dict(config.generate)
        self.system = self.settings.pop("system", None)
        self.expert = None  # the oracle's
        self.router = build.router(config, self.library, self.model) if self.library else None
        self.messages: list[dict[str, str]] = []
        self.shows_experts = False
        self.left = False

    def hear(self, line: str) -> None:
        """Obeys a command or answers; input that is at fault is said to be, and the conversation goes on."""
        try:
            if line.startswith("/"):
                self.obey(*line.split(maxsplit=1))
            else:
                self.answer(line)
        except InputError as error:
            self.terminal.say(f"modjax: {error}")

    def described(self) -> str:
        if self.router is None:
            return self.model.name
        of = f" of {self.expert}" if isinstance(self.router, Oracle) else ""
        return f"{self.model.name} with {len(self.library)} experts under {type(self.router).__name__}{of}"

    def obey(self, command: str, rest: str = "") -> None:
        if command not in COMMANDS:
            raise InputError(f"no command {command!r}; expected one of {', '.join(COMMANDS)}")
        getattr(self, f"_{command[1:]}")(rest)

    def answer(self, text: str) -> None:
        """Says the answer while it comes; both sides are remembered, also where the answer was interrupted."""
        messages = [*self.messages, {"role": "user", "content": text}]
        start, said = time.perf_counter(), ""
        try:
            for _, piece in self.model.stream([messages], **self._asked()):
                said += piece
                self.terminal.write(piece)
        except KeyboardInterrupt:
            self.terminal.write(" …")
        seconds = time.perf_counter() - start
        self.terminal.write("\n")
        self.messages = [*messages, {"role": "assistant", "content": said}]
        tokens = self.model.tokenizer(said, add_special_tokens=False)["input_ids"]
        if self.shows_experts and self.router is not None and tokens:
            self._show(messages, tokens)
        self.terminal.aside(f"tokens: {len(tokens)} in {seconds:.1f} seconds")

    def _asked(self):
        experts = None if self.expert is None else [self.expert]
        library, router = (self.library, self.router) if self.router is not None else (None, None)
        seed = self.settings.get("seed", 0) + len(self.messages)  # the same words twice need not get the same answer
        given = dict(library=library, router=router, system=self.system, choices=experts, every=EVERY)
        return self.settings | given | {"seed": seed}

    def _show(self, messages, tokens):
        """The experts of an answer's tokens, from one more pass over the conversation up to its end."""
        (head,) = encode_prompts(self.model.tokenizer, [messages], self.system)
        encoded = Encoded(np.concatenate([head, np.asarray(tokens, np.int32)]), len(head))
        ids = None if self.expert is None else [self.library.names.index(self.expert)]
        method = Method("chat", self.library, self.router)
        (weights_LnE,) = routing_weights(self.model, method, [encoded], batch=1, choices=ids)
        answer = Answer(self.model.tokenizer)
        texts = [answer.push([token]) for token in tokens]
        texts[-1] += answer.finish()
        for line in view(self.terminal, texts, weights_LnE[:, len(head) :], self.library.names):
            self.terminal.say(line)

    def _experts(self, rest):
        if self.library is None:
            raise InputError("there are no experts; begin with --config.library=DIR")
        self.shows_experts = not self.shows_experts
        self.terminal.say(f"experts are {'shown' if self.shows_experts else 'hidden'}")

    def _router(self, rest):
        if self.library is None:
            raise InputError("there is nothing to route to; begin with --config.library=DIR")
        name, expert = (*rest.split(maxsplit=1), None, None)[:2]
        if name not in (*catalogue.routers(), "none"):
            raise InputError(f"/router {rest}: expected one of {', '.join(catalogue.routers())}, none")
        if (name == "oracle") != (expert is not None) or (expert and expert not in self.library.names):
            raise InputError(f"/router {rest}: expected an expert behind oracle and nowhere else, "
                             f"one of {', '.join(self.library.names)}")  # fmt: skip
        self.router = None if name == "none" else build.router(self.config, self.library, self.model, name)
        self.expert = expert
        self.terminal.say(self.described())

    def _system(self, rest):
        self.system, self.messages = rest or None, []
        self.terminal.say("the system message is set" if rest else "the system message is the template's own")

    def _reset(self, rest):
        self.messages = []
        self.terminal.say("forgotten")

    def _help(self, rest):
        for command, text in COMMANDS.items():
            self.terminal.say(f"  {command:9} {text}")

    def _quit(self, rest):
        self.left = True
