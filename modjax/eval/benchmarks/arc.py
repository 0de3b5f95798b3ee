"""ARC, the easy and the challenge set of science questions (arXiv 1803.05457), split test.

    Question: {question}\\nAnswer:| {choice}

The bar stands between context and continuation, here and in the other benchmarks. This prompt is that of mttl, the
reference code of arXiv 2405.11157, and of lm-evaluation-harness (arc_challenge and arc_easy, version 1.0).
"""

from modjax.eval.benchmarks.benchmark import Benchmark, Choices
from modjax.eval.benchmarks.records import Form, Hub


def _asked(question: str, choices: list[str], gold: int) -> Choices:
    question = question.removeprefix("Question: ")
    return Choices((f"Question: {question}\nAnswer:",) * len(choices), tuple(choices), gold)


def _original(record):
    return _asked(record.text("question"), *record.labelled("choices", "answerKey"))


def _query(record):
    choices = record.texts("choices")
    return _asked(record.text("query"), choices, record.index("gold", len(choices)))


FORMS = (Form(("question", "choices", "answerKey"), _original), Form(("query", "choices", "gold"), _query))
CHALLENGE = Benchmark("arc_challenge", 1, Hub("allenai/ai2_arc", ("ARC-Challenge",), "test"), FORMS)
EASY = Benchmark("arc_easy", 1, Hub("allenai/ai2_arc", ("ARC-Easy",), "test"), FORMS)
