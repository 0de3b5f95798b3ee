'''MBPP, short Python functions (arXiv 2108.07732), the 500 tasks 11 to 510 of its split test, pass@1 of greedy answers.

    def {name and arguments}:
    \t"""
    \t{task}
    \t{tests, one a line}
    \t"""

The prompt is that of mttl, the reference code of arXiv 2405.11157: zero-shot, the first line taken from the record's
solution, indented by tabs; here without its last line break, as in HumanEval. The answer ends where other code begins
at the left margin; mttl also ends it at the first empty line, and samples at temperature 0.05. lm-evaluation-harness
(mbpp) has three examples in its prompt.
'''

from modjax.errors import InputError
from modjax.eval.benchmarks.benchmark import Answering, Benchmark, Problem
from modjax.eval.benchmarks.humaneval import STOP
from modjax.eval.benchmarks.records import Form, Hub

TEST = range(11, 511)  # ids of the split test


def _described(record):
    return _asked(record, record.text("text"), record.get("test_setup_code"))


def _sanitized(record):
    imports = record.get("test_imports")
    return _asked(record, record.text("prompt"), "\n".join(imports) if imports else "")


def _asked(record, task, setup):
    number = record["task_id"]
    if not isinstance(number, int):
        raise InputError(f"{record.where}: key 'task_id' is {number!r}; expected a number")
    if number not in TEST:
        return None
    tests = record.texts("test_list")
    head, colon, _ = record.text("code").replace("\r\n", "\n").partition(":")
    if not colon:
        raise InputError(f"{record.where}: key 'code' has no colon; expected a function")
    lines = [f"{head}:", '\t"""', f"\t{task}", *(f"\t{test}" for test in tests), '\t"""']
    prompt = "\n".join(lines)
    return Problem(prompt, "\n".join([setup or "", *tests, ""]), start=prompt)


MBPP = Benchmark(
    "mbpp",
    1,
    Hub("google-research-datasets/mbpp", ("full",), "test"),
    (
        Form(("task_id", "text", "code", "test_list"), _described),
        Form(("task_id", "prompt", "code", "test_list"), _sanitized),
    ),
    "pass_at_1",
    Answering((*STOP, "\nassert"), 256),
)
