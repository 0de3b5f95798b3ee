"""Rouge-L of the answers to validation prompts: the criterion of early stopping in arXiv 2405.11157."""

from collections.abc import Mapping, Sequence

import numpy as np

from modjax.data.tasks import Tasks
from modjax.eval.sample import Sample, prepared
from modjax.experts.library import ExpertInfo, Library
from modjax.metrics import rouge_l
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
        self.examples = [
            (number, one.encoded.tokens[: one.encoded.n_prompt], one.example.answers) for number, one in found
        ]

    def rouge_l(self, loras: Loras, members: Sequence[int]) -> np.ndarray:
        """float32[E], the mean over the prompts of each of some members; loras: one expert for each of them."""
        settings, places = self.settings, {number: place for place, number in enumerate(members)}
        infos = tuple(ExpertInfo(self.names[number], (), settings.rank, settings.alpha) for number in members)
        library = Library(loras, infos)
        own = [(places[number], *one) for number, *one in self.examples if number in places]
        choices, prompts, accepted = zip(*own, strict=True)
        given = {"max_new_tokens": settings.max_new_tokens, "choices": choices}
        answers = self.model.generate(prompts, library, oracle(library), **given)
        rouge_n = [rouge_l(*pair) for pair in zip(answers, accepted, strict=True)]
        return np.float32(np.bincount(choices, rouge_n) / np.bincount(choices))
