"""PIQA, everyday goals and two solutions (arXiv 1911.11641), split validation.

    Question: {goal}\\nAnswer:| {solution}

The prompt of mttl and of lm-evaluation-harness (piqa, version 1.0). On the Hub it is read from the copy that the
harness reads, since ybisk/piqa has a loading script, which `datasets` no longer runs.
"""

from modjax.eval.benchmarks.benchmark import Benchmark, Choices
from modjax.eval.benchmarks.records import Form, Hub


def _asked(record):
    context = f"Question: {record.text('goal')}\nAnswer:"
    return Choices((context,) * 2, (record.text("sol1"), record.text("sol2")), record.index("label", 2))


PIQA = Benchmark(
    "piqa", 1, Hub("baber/piqa", (None,), "validation"), (Form(("goal", "sol1", "sol2", "label"), _asked),)
)
