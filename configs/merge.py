"""A library's experts merged into one, which costs as much as one LoRA and needs no router.

Cost: seconds. Expect: `uniform` 1.10 nats per target token in distribution and 2.10 held out on the demo's private
experts, `ties` 1.06 and 2.08 (docs/methods.md).

    modjax merge --config=configs/merge.py:ties,library=workdir/private/library,method.merge.density=0.3 \\
        --workdir=workdir/ties
    modjax evaluate --config=configs/evaluate.py:quick,library=workdir/ties/library,method.router.name=uniform \\
        --workdir=workdir/scores/ties

GenKnowSub subtracts the mean of general experts from every expert, and keeps them all:

    modjax merge --config=configs/merge.py:genknowsub,library=workdir/private/library \\
        --config.method.subtract.library=workdir/general/library --workdir=workdir/less
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.method = {
        "subtract": {"library": "", "form": "factors"},  # general experts; "": nothing is subtracted
        "merge": {"name": "uniform"},  # a function of modjax.merge, and its options
    }
    return with_variants(config, variants, ties=ties, genknowsub=genknowsub)


def ties(config):
    """TIES with its default settings."""
    config.method.merge.name = "ties"


def genknowsub(config):
    """Subtraction alone; `method.subtract.library` names the general experts."""
    del config.method.merge
