"""HellaSwag, the likely continuation of a scene (arXiv 1905.07830), split validation.

    {activity}: {context}| {ending}

Texts are cleaned as in mttl and in lm-evaluation-harness (hellaswag, version 1.0): " [title]" becomes ". ", other
brackets are dropped, double spaces become single ones, once; the unfinished sentence begins with a capital letter, and
has no other. Records of {ctx, label, endings} are cleaned already but for that letter.
"""

import re

from modjax.eval.benchmarks.benchmark import Benchmark, Choices
from modjax.eval.benchmarks.records import Form, Hub

BRACKETS = re.compile(r"\[.*?\]")


def cleaned(text: str) -> str:
    """A text of the original files without the marks of the WikiHow part."""
    return BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _asked(context, endings, gold) -> Choices:
    return Choices((context,) * len(endings), tuple(endings), gold)


def _original(record):
    scene = f"{record.text('ctx_a')} {record.text('ctx_b').capitalize()}"
    endings = [cleaned(ending) for ending in record.texts("endings")]
    context = cleaned(f"{record.text('activity_label')}: {scene}")
    return _asked(context, endings, record.index("label", len(endings)))


def _cleaned(record):
    endings, context = record.texts("endings"), record.text("ctx")
    before, stop, last = context.rpartition(". ")
    if last[:1].islower():
        context = f"{before}{stop}{last.capitalize()}"
    return _asked(context, endings, record.index("label", len(endings)))


HELLASWAG = Benchmark(
    "hellaswag",
    1,
    Hub("Rowan/hellaswag", (None,), "validation"),
    (
        Form(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _original),
        Form(("ctx", "label", "endings"), _cleaned),
    ),
)
