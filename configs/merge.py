"""A library's experts merged into one, which costs what one LoRA costs and needs no router.

    modjax merge --config=configs/merge.py --config.library=workdir/private/library --workdir=workdir/ties \\
        --config.merge.name=ties --config.merge.options="density=0.3, form='products'"
    modjax evaluate --config=configs/evaluate.py:quick --config.library=workdir/ties/library --workdir=workdir/scores

GenKnowSub takes the mean of general experts off every expert, and leaves as many:

    modjax merge --config=configs/merge.py --config.library=workdir/private/library --workdir=workdir/less \\
        --config.merge.name=genknowsub --config.merge.general=workdir/general/library
"""

from common import base, with_variants


def get_config(variants: str | None = None):
    config = base()
    config.merge = {
        "name": "uniform",  # a function of modjax.merge, or genknowsub
        "options": "",  # its other arguments, as in Python: "density=0.3, form='products'"
        "general": "",  # genknowsub: the library of general experts
    }
    return with_variants(config, variants)
