"""BoolQ, yes-or-no questions about a passage (arXiv 1905.10044), split validation.

    {passage}\\nQuestion: {question}?\\nAnswer:| no, | yes

The prompt of mttl and of lm-evaluation-harness (boolq, version 2.0).
"""

from modjax.errors import InputError
from modjax.eval.benchmarks.benchmark import Benchmark, Choices
from modjax.eval.benchmarks.records import Form, Hub

CHOICES = ("no", "yes")


def _asked(passage: str, question: str, gold: int) -> Choices:
    context = f"{passage}\nQuestion: {question.removesuffix('?')}?\nAnswer:"
    return Choices((context,) * 2, CHOICES, gold)


def _original(record):
    return _asked(record.text("passage"), record.text("question"), record.index("answer", 2))


def _super_glue(record):
    return _asked(record.text("passage"), record.text("question"), record.index("label", 2))


def _query(record):
    passage, found, question = record.text("query").removeprefix("Passage: ").rpartition("\nQuestion: ")
    if not found or record.texts("choices") != list(CHOICES):
        raise InputError(f"{record.where}: expected a passage, a line 'Question: ...', and the choices no and yes")
    return _asked(passage, question, record.index("gold", 2))


BOOLQ = Benchmark(
    "boolq",
    1,
    Hub("google/boolq", (None,), "validation"),
    (
        Form(("passage", "question", "answer"), _original),
        Form(("passage", "question", "label"), _super_glue),
        Form(("query", "choices", "gold"), _query),
    ),
)
