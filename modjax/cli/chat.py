"""`modjax chat`: a conversation with the base model, or with a library and a router."""

import time

import numpy as np

from modjax.cli import build, session
from modjax.cli.expert_view import view
from modjax.cli.terminal import Terminal
from modjax.data import inputs
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.eval.traces import routing_weights
from modjax.models.answer import Answer
from modjax.parallel.distributed import from_first
from modjax.routing.oracle import Oracle
from modjax.studies import catalogue, methods

NEEDS = ("config",)  # flags that must be given
EXAMPLE = "modjax chat --config=configs/chat.py:library=workdir/private/library"
COMMANDS = {
    "/experts": "show or hide the experts of each token",
    "/router": "NAME [EXPERT]: use another router; the oracle needs an expert; none is the base model",
    "/system": "TEXT: set the system message and start a new conversation; without TEXT, the template's own message",
    "/reset": "start a new conversation",
    "/help": "list the commands",
    "/quit": "leave",
}
EVERY = 2  # tokens between two updates of the text: smooth, at little cost


def run(config, workdir, flags) -> None:
    """Answers each line as the next turn of one conversation; lines that begin with a slash are commands."""
    if workdir:
        session.enter(workdir, config)
    terminal = Terminal()
    chat = Chat(config, terminal)
    terminal.aside(f"{chat.described()}. /help lists the commands.")
    while not chat.left and (line := from_first(terminal.ask)) is not None:
        if line.strip():
            chat.handle(line.strip())


class Chat:
    """The model, its method, and the messages so far."""

    def __init__(self, config, terminal: Terminal):
        self.config, self.terminal = config, terminal
        self.experiment, self.line = build.experiment(config), build.method(config)
        self.model = self.experiment.model
        self.settings = dict(config.generate)
        self.system = self.settings.pop("system", None)
        self.method = methods.make("chat", self.line, self.experiment)
        self.expert = None  # the oracle's
        self.messages: list[dict[str, str]] = []
        self.shows_experts = False
        self.left = False

    def handle(self, line: str) -> None:
        """Runs a command or answers a message; after an InputError, which is shown, the conversation goes on."""
        try:
            if line.startswith("/"):
                self.command(*line.split(maxsplit=1))
            else:
                self.answer(line)
        except InputError as error:
            self.terminal.say(f"modjax: {error}")

    def described(self) -> str:
        library, router = self.method.library, self.method.router
        if library is None:
            return self.model.name
        if router is None:
            return f"{self.model.name} with one merged expert"
        of = f" of {self.expert}" if isinstance(router, Oracle) else ""
        return f"{self.model.name} with {len(library)} experts, routed by {type(router).__name__}{of}"

    def command(self, name: str, rest: str = "") -> None:
        if name not in COMMANDS:
            raise InputError(f"unknown command {name!r}; expected one of {', '.join(COMMANDS)}")
        getattr(self, f"_{name[1:]}")(rest)

    def answer(self, text: str) -> None:
        """Prints the answer while it is generated; both messages are kept, also those of an interrupted answer."""
        messages = [*self.messages, {"role": "user", "content": text}]
        start, answer = time.perf_counter(), ""
        try:
            for _, piece in self.model.stream([messages], **self._request()):
                answer += piece
                self.terminal.write(piece)
        except KeyboardInterrupt:
            self.terminal.write(" …")
        seconds = time.perf_counter() - start
        self.terminal.write("\n")
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        tokens = self.model.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if self.shows_experts and self.method.router is not None and tokens:
            self._show(messages, tokens)
        self.terminal.aside(f"tokens: {len(tokens)} in {seconds:.1f} seconds")

    def _request(self):
        seed = self.settings.get("seed", 0) + len(self.messages)  # the same message twice need not get the same answer
        return self.settings | {
            "library": self.method.library,
            "router": self.method.router,
            "choices": None if self.expert is None else [self.expert],
            "system": self.system,
            "seed": seed,
            "every": EVERY,
        }

    def _show(self, messages, tokens):
        """Prints the experts of an answer's tokens, from one more forward pass over the whole conversation."""
        (head,) = inputs.prompts(self.model, [messages], self.system)
        encoded = Encoded(np.concatenate([head, np.asarray(tokens, np.int32)]), len(head))
        names = self.method.library.names
        ids = None if self.expert is None else [names.index(self.expert)]
        (weights_LnE,) = routing_weights(self.model, self.method, [encoded], batch=1, choices=ids)
        answer = Answer(self.model.tokenizer)
        texts = [answer.push([token]) for token in tokens]
        texts[-1] += answer.finish()
        for line in view(self.terminal, texts, weights_LnE[:, len(head) :], names):
            self.terminal.say(line)

    def _experts(self, rest):
        self._check_library()
        self.shows_experts = not self.shows_experts
        self.terminal.say(f"experts are {'shown' if self.shows_experts else 'hidden'}")

    def _router(self, rest):
        self._check_library()
        name, expert = (*rest.split(maxsplit=1), None, None)[:2]
        if name not in (*catalogue.routers(), "none"):
            raise InputError(f"/router {rest}: expected one of {', '.join(catalogue.routers())}, none")
        line = {"library": ""} if name == "none" else self.line | {"router": {"name": name}}
        method = methods.make("chat", line, self.experiment)
        experts = method.library.names if name == "oracle" else []
        if (expert or "") not in (experts or [""]):
            raise InputError(f"/router {rest}: expected {_listed(experts)} after {name}")
        self.method, self.expert = method, expert
        self.terminal.say(self.described())

    def _check_library(self):
        if "library" in self.line and not self.line["library"]:
            raise InputError("there are no experts; start with --config.library=DIR")

    def _system(self, rest):
        self.system, self.messages = rest or None, []
        self.terminal.say(
            "new conversation with " + ("this system message" if rest else "the template's system message")
        )

    def _reset(self, rest):
        self.messages = []
        self.terminal.say("new conversation")

    def _help(self, rest):
        for command, text in COMMANDS.items():
            self.terminal.say(f"  {command:9} {text}")

    def _quit(self, rest):
        self.left = True


def _listed(experts):
    return f"an expert, one of {', '.join(experts)}," if experts else "nothing"
