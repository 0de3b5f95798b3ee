"""The ten benchmarks of the paper (arXiv 2405.11157, section 5) by name, in the order of its tables."""

from modjax.eval.benchmarks.arc import CHALLENGE, EASY
from modjax.eval.benchmarks.bbh import BBH
from modjax.eval.benchmarks.benchmark import Benchmark
from modjax.eval.benchmarks.boolq import BOOLQ
from modjax.eval.benchmarks.hellaswag import HELLASWAG
from modjax.eval.benchmarks.humaneval import HUMANEVAL
from modjax.eval.benchmarks.mbpp import MBPP
from modjax.eval.benchmarks.openbookqa import OPENBOOKQA
from modjax.eval.benchmarks.piqa import PIQA
from modjax.eval.benchmarks.winogrande import WINOGRANDE

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one for one in (PIQA, BOOLQ, WINOGRANDE, HELLASWAG, EASY, CHALLENGE, OPENBOOKQA, BBH, HUMANEVAL, MBPP)
}
