"""How well members answer their validation prompts: what few-shot adaptation stops by in arXiv 2405.11157."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from modjax.data.tasks import Tasks
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval.metrics import rouge_l
from modjax.experts.library import ExpertInfo, Library
from modjax.routing.oracle import oracle
from modjax.train.lora import Loras
from modjax.train.settings import Settings


class Answers:
    """The validation prompts of E members, and how well they are answered."""

    def __init__(self, model: Any, members: Mapping[str, Tasks], settings: Settings):
        """Raises InputError for prompts that leave no room for `settings.max_new_tokens`."""
        self.model, self.settings, self.names = model, settings, tuple(members)
        self.prompts, self.accepted, self.ids = [], [], []
        for number, tasks in enumerate(members.values()):
            for task in tasks.values():
                self._add(number, task)

    def _add(self, number, task):
        settings, examples = self.settings, task.split("validation")
        room = self.model.config.context - settings.max_new_tokens
        for one in encode(self.model.tokenizer, task, examples, settings.length, settings.system, settings.too_long):
            if one.n_prompt > room:
                raise InputError(
                    f"task {task.name!r}: a validation prompt has {one.n_prompt} tokens; expected at most {room}, the "
                    f"model's context less max_new_tokens={settings.max_new_tokens}"
                )
            self.prompts.append(one.tokens[: one.n_prompt])
        self.accepted += [example.answers for example in examples]
        self.ids += [number] * len(examples)

    def rouge_l(self, loras: Loras, scale_E: np.ndarray) -> np.ndarray:
        """float32[E], the mean over each member's prompts; one expert a member."""
        settings = self.settings
        infos = tuple(ExpertInfo(name, (), settings.rank, settings.alpha) for name in self.names)
        library = Library(loras, scale_E, infos)
        given = {"max_new_tokens": settings.max_new_tokens, "experts": self.ids}
        answers = self.model.generate(self.prompts, library, oracle(library), **given)
        rouge_n = [rouge_l(*pair) for pair in zip(answers, self.accepted, strict=True)]
        return np.float32(np.bincount(self.ids, rouge_n) / np.bincount(self.ids))
