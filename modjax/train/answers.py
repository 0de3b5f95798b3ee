"""Rouge-L of the answers to validation prompts: the criterion of early stopping in arXiv 2405.11157."""

from collections.abc import Mapping

import numpy as np

from modjax.data.tasks import Tasks
from modjax.eval.metrics import rouge_l
from modjax.eval.sample import Sample, prepared
from modjax.experts.library import ExpertInfo, Library
from modjax.model import Model
from modjax.ops.lora import Loras
from modjax.routing.oracle import oracle
from modjax.train.settings import Settings


class Answers:
    """The validation prompts of E members, and the score of their answers."""

    def __init__(self, model: Model, members: Mapping[str, Tasks], settings: Settings):
        """Raises InputError for prompts that leave no room for answers of `settings.max_new_tokens` tokens."""
        self.model, self.settings, self.names = model, settings, tuple(members)
        sample = Sample(0, "validation", length=settings.length, system=settings.system, too_long=settings.too_long)
        found = [
            (number, one)
            for number, tasks in enumerate(members.values())
            for one in prepared(model, tasks, sample, settings.max_new_tokens)
        ]
        self.ids, chosen = zip(*found, strict=True)
        self.prompts = [one.encoded.tokens[: one.encoded.n_prompt] for one in chosen]
        self.accepted = [one.example.answers for one in chosen]

    def rouge_l(self, loras: Loras) -> np.ndarray:
        """float32[E], the mean over each member's prompts; loras: one expert per member."""
        settings = self.settings
        infos = tuple(ExpertInfo(name, (), settings.rank, settings.alpha) for name in self.names)
        library = Library(loras, infos)
        given = {"max_new_tokens": settings.max_new_tokens, "choices": self.ids}
        answers = self.model.generate(self.prompts, library, oracle(library), **given)
        rouge_n = [rouge_l(*pair) for pair in zip(answers, self.accepted, strict=True)]
        return np.float32(np.bincount(self.ids, rouge_n) / np.bincount(self.ids))
