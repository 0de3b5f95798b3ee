"""HumanEval, functions to complete by their docstring (arXiv 2107.03374), pass@1 of greedy answers.

    {prompt}|

The prompt is the beginning of a module, as in mttl and in lm-evaluation-harness (humaneval, version 1.0). An answer
ends where other code begins at the left margin; mttl also ends it at the first empty line, and samples at temperature
0.05.
The prompt loses its last line break, as in bigcode-evaluation-harness: many tokenizers have one token for a line break
and the spaces after it, and after the break alone models do not go on with code. SmolLM2-135M-Instruct solves 5 of the
first 48 so, and none with the break, which mttl and lm-evaluation-harness keep.
Prompt, answer and the tests of the record are run as one program; see `modjax.eval.execution`.
"""

from modjax.eval.benchmarks.benchmark import Answering, Benchmark, Problem
from modjax.eval.benchmarks.records import Form, Hub

STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def _asked(record):
    prompt = record.text("prompt").rstrip()
    tests = f"{record.text('test')}\ncheck({record.text('entry_point')})\n"
    return Problem(prompt, tests, start=prompt)


HUMANEVAL = Benchmark(
    "humaneval",
    1,
    Hub("openai/openai_humaneval", (None,), "test"),
    (Form(("prompt", "test", "entry_point"), _asked),),
    "pass_at_1",
    Answering(STOP, 512),
)
