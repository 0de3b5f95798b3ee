"""Tasks of lm-evaluation-harness: the base model, a library with a router, or a merged library.

    modjax evaluate --config=configs/harness.py:harness.tasks=arc_easy --workdir=workdir/harness/base
    modjax evaluate --config=configs/harness.py:harness.tasks=(arc_easy,hellaswag),library=workdir/mbc/library \\
        --workdir=workdir/harness/arrow
    modjax evaluate --config=configs/harness.py:include_path=DIR,harness.tasks=my_task --workdir=workdir/harness/mine

It needs `pip install modjax[eval]`. lm-eval's own tasks are loaded from the hub; those of DIR, task files of lm-eval,
from where they say. The method is that of configs/evaluate.py; its router weighs the experts of each request by itself,
so it may not be the oracle.

Cost: one pass over each question, which is read once for all of its answers. Expect of SmolLM2-135M-Instruct, which is
the default, 24.4 % acc and 26.5 % acc_norm on the 1172 questions of arc_challenge, from a local copy of its test set.
Log-likelihoods equal those of lm-eval's own model of transformers to rounding (tests/eval/test_harness.py).

Prompts are not put in the chat template unless `chat` is set. Answers are kept in WORKDIR/answers*.db, so that a run
that was stopped goes on.
"""

from common import base, with_variants
from ml_collections.config_dict import placeholder


def get_config(variants: str | None = None):
    config = base()
    config.harness = {
        "tasks": (),  # names of tasks, groups and tags of lm-eval
        "include_path": "",  # a folder of task files of your own
        "num_fewshot": placeholder(int),  # None: as each task says
        "limit": 0,  # examples per task, the first ones; 0: all
        "batch": 32,  # requests computed at once if they share nothing
        "max_length": placeholder(int),  # tokens that the model may read; None: its context
        "max_gen_toks": 256,  # length of answers where a task does not say it
        "seed": 0,  # of sampled answers
        "chat": False,  # whether prompts are put in the chat template
        "system": placeholder(str),  # system message
        "bootstrap": 100000,  # resamples for standard errors
    }
    return with_variants(config, variants)
