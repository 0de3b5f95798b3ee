"""BIG-Bench Hard, 27 tasks with direct answers after five examples (arXiv 2210.09261).

    Solve the following problem: {input}\\nAnswer: {target}\\n\\n    (the first five examples of the task)
    Solve the following problem: {input}\\nAnswer:

Prompt, number of examples and the end of an answer, at the first empty line, are those of mttl, the reference code of
arXiv 2405.11157, which asks for no chain of thought. There, the five examples are also scored; here they are not. An
answer is right if it equals the target without case, punctuation and further white space, as in mttl. A target of
punctuation alone, as the brackets of dyck_languages, is compared as it is: mttl takes any brackets for it.
lm-evaluation-harness has other prompts: bbh_fewshot (three examples, direct) and bbh_cot_fewshot (chain of thought).
On the Hub it is read from the copy that the harness reads, since lukaemon/bbh has a loading script.
"""

import string

from modjax.errors import InputError
from modjax.eval.benchmarks.benchmark import Answering, Benchmark, Problem
from modjax.eval.benchmarks.records import Form, Hub

SHOTS = 5
TASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
    "word_sorting",
)  # fmt: skip
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """A text in lower case, without punctuation, its words with one space between them."""
    return " ".join(text.lower().translate(PUNCTUATION).split())


def right(answer: str, problem: Problem) -> bool:
    """Whether an answer is the target."""
    if normalised(problem.target):
        return normalised(answer) == normalised(problem.target)
    return answer.split() == problem.target.split()


def _asked(record):
    prompt = f"Solve the following problem: {record.text('input')}\nAnswer:"
    return Problem(prompt, record.text("target"), record.group)


def _after_examples(problems: list[Problem]) -> list[Problem]:
    """Each problem of a task after the first five, with those before it."""
    by_task: dict[str, list[Problem]] = {}
    for one in problems:
        by_task.setdefault(one.group, []).append(one)
    found = []
    for task, own in by_task.items():
        if len(own) <= SHOTS:
            raise InputError(f"bbh, task {task!r}: has {len(own)} examples; expected more than the {SHOTS} of prompts")
        shots = "".join(f"{shot.prompt} {shot.target}\n\n" for shot in own[:SHOTS])
        found += [one._replace(prompt=shots + one.prompt) for one in own[SHOTS:]]
    return found


BBH = Benchmark(
    "bbh",
    1,
    Hub("SaylorTwift/bbh", TASKS, "test"),
    (Form(("input", "target"), _asked),),
    "exact_match",
    Answering(("\n\n",), 128, right),
    _after_examples,
)
