"""Recipe: the generator of the examples of one task."""

import dataclasses
import random
from collections.abc import Callable

from modjax.data.example import Example
from modjax.data.splits import assign_split
from modjax.data.tasks import Task

SIZE = 300  # examples per task; fewer if there are not enough facts
PATIENCE = 1000  # generation stops after this many successive draws without a new example

Draw = Callable[[random.Random], tuple[str, ...]]  # the values of the blanks in the question, then the answer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One task: questions with blanks, and a function that draws the values of the blanks and the answer."""

    family: str
    name: str
    draw: Draw
    wordings: tuple[str, ...]  # forms of the question, each with `{}` for every blank
    answer: str  # form of the answers in the family, with `{}` for the answer itself
    held_out: bool

    @property
    def definition(self) -> str:
        """The first wording, with an ellipsis for each blank."""
        return self.wordings[0].replace("{}", "…").replace("\n", " ")

    def build(self, seed: int) -> Task:
        """The task with up to SIZE examples, no two with the same blanks; equal seeds give equal tasks."""
        # Random hashes a string seed with SHA-512: the same in every process and Python version.
        rng = random.Random(f"{seed}/{self.name}")
        examples: dict[tuple[str, ...], Example] = {}
        misses = 0
        while len(examples) < SIZE and misses < PATIENCE:
            *blanks, answer = self.draw(rng)
            misses += 1
            if tuple(blanks) not in examples:
                source = rng.choice(self.wordings).format(*blanks)
                split = assign_split(len(examples))
                examples[tuple(blanks)] = Example(source, self.answer.format(answer), split)
                misses = 0
        return Task(self.name, tuple(examples.values()), self.family, self.held_out, self.definition)


def recipe(family: str, *wordings: str, answer: str = "{}", held_out: bool = False) -> Callable[[Draw], Recipe]:
    """Decorator that turns a draw function into the recipe of the task `<family>_<function name>`."""

    def decorate(draw: Draw) -> Recipe:
        return Recipe(family, f"{family}_{draw.__name__}", draw, wordings, answer, held_out)

    return decorate
