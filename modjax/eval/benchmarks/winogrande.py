"""WinoGrande, a blank with two options (arXiv 1907.10641), split validation of winogrande_xl.

    {sentence before the blank}{option}| {sentence after the blank}

The likelihood of what follows the blank is compared for the two options (partial evaluation, arXiv 1806.02847), as in
mttl and in lm-evaluation-harness (winogrande, version 1.0).
"""

from modjax.errors import InputError
from modjax.eval.benchmarks.benchmark import Benchmark, Choices
from modjax.eval.benchmarks.records import Form, Hub


def _original(record):
    before, blank, after = record.text("sentence").partition("_")
    answer = record.text("answer")
    if not blank or answer not in ("1", "2"):
        raise InputError(
            f"{record.where}: expected a sentence with the blank _, and the answer 1 or 2; found {answer!r}"
        )
    options = (record.text("option1"), record.text("option2"))
    return Choices(tuple(before + option for option in options), (after.strip(),) * 2, int(answer) - 1)


def _options(record):
    contexts = record.texts("context_options")
    gold = record.index("gold", len(contexts))
    return Choices(tuple(contexts), (record.text("continuation"),) * len(contexts), gold)


WINOGRANDE = Benchmark(
    "winogrande",
    1,
    Hub("allenai/winogrande", ("winogrande_xl",), "validation"),
    (
        Form(("sentence", "option1", "option2", "answer"), _original),
        Form(("context_options", "continuation", "gold"), _options),
    ),
)
