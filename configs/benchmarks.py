"""The ten zero-shot benchmarks of the paper (arXiv 2405.11157): ARC-c, ARC-e, BoolQ, HellaSwag, OpenBookQA, PIQA,
WinoGrande by length-normalised likelihood, BBH by exact match, HumanEval and MBPP by pass@1; and their unweighted mean.

Cost: the base model reads 3 million tokens, most of them HellaSwag's, and writes 7,000 short answers; minutes on a GPU,
hours on a CPU (`evaluate.examples=100` for a first look). Expect: docs/benchmarks.md for SmolLM2-135M-Instruct.

    modjax evaluate --config=configs/benchmarks.py:data=DIR,execute=True --workdir=workdir/benchmarks
    modjax evaluate --config=configs/benchmarks.py:data=DIR,execute=True,library=workdir/mbc/library \\
        --workdir=workdir/benchmarks-arrow

DIR has a file or a folder for each benchmark, as arc_challenge.jsonl.gz or bbh/; without `data` records come from the
Hugging Face hub. HumanEval and MBPP run programs that the model writes, as modjax/eval/execution.py says; without
`execute=True` they must be left out by `names`.
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.evaluate.examples = 0  # number per benchmark, of BBH per task; 0: all
    config.benchmarks = {
        "data": "",  # the folder of the records; "": the Hugging Face hub
        "names": (),  # of modjax.eval.BENCHMARKS; (): all ten
        "chat": False,  # ask through the chat template
        "execute": False,  # run the programs of HumanEval and MBPP
        "batch": 32,  # questions computed at once
        "limits": {  # of each program
            "seconds": 5,  # of the processor
            "wall": 10.0,  # seconds of the clock
            "memory": 2**30,  # bytes of address space
            "output": 2**20,  # bytes of printed text, and of each file
        },
    }
    return with_variants(config, variants)
