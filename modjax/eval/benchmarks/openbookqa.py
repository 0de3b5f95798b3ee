"""OpenBookQA, elementary science (arXiv 1809.02789), split test.

    {question}| {choice}

The prompt of lm-evaluation-harness (openbookqa, version 1.0), without "Question:" and "Answer:": most questions are
the beginnings of sentences.
"""

from modjax.eval.benchmarks.benchmark import Benchmark, Choices
from modjax.eval.benchmarks.records import Form, Hub


def _asked(question, choices, gold) -> Choices:
    return Choices((question,) * len(choices), tuple(choices), gold)


def _original(record):
    return _asked(record.text("question_stem"), *record.labelled("choices", "answerKey"))


def _query(record):
    choices = record.texts("choices")
    return _asked(record.text("query"), choices, record.index("gold", len(choices)))


OPENBOOKQA = Benchmark(
    "openbookqa",
    1,
    Hub("allenai/openbookqa", ("main",), "test"),
    (Form(("question_stem", "choices", "answerKey"), _original), Form(("query", "choices", "gold"), _query)),
)
