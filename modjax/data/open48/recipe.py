"""A recipe: how the examples of one generated task are made."""

import dataclasses
import random
from collections.abc import Callable

from modjax.data.tasks import Example, Task, assign_split

SIZE = 300  # examples a task, where its facts allow
PATIENCE = 1000  # draws in a row that bring nothing new, after which the facts count as used up

Draw = Callable[[random.Random], tuple[str, ...]]  # the blanks of the question, and last the answer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One task: questions with blanks, and a function that draws what fills them and the answer."""

    family: str
    name: str
    draw: Draw
    wordings: tuple[str, ...]  # ways to ask, each with `{}` for every blank
    answer: str  # the family's way to answer, with `{}` for the answer itself
    held_out: bool

    @property
    def definition(self) -> str:
        return self.wordings[0].replace("{}", "…").replace("\n", " ")

    def build(self, seed: int) -> Task:
        """The task with up to SIZE examples, no two of the same blanks; equal seeds give equal tasks."""
        # a string seeds by its SHA-512: the same in every process and Python version
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
    """Makes a draw function the recipe of the task `<family>_<function name>`."""

    def decorate(draw: Draw) -> Recipe:
        return Recipe(family, f"{family}_{draw.__name__}", draw, wordings, answer, held_out)

    return decorate
