"""Every method on one library: scores with intervals, pairs compared, costs, and how the routers divide the work.

    modjax leaderboard --config=configs/leaderboard.py:demo --config.library=workdir/demo/private/library \\
        --workdir=workdir/leaderboard --report=report
    ... --config.leaderboard.libraries.mbc=workdir/demo/mbc/library      adds the methods of another library

A method is one line of METHODS, its name and what it is made of, in this order:

    library     which of `libraries`; by default "library", that of config.library; "" is the base model alone
    subtract    general experts whose mean is taken off: {"library": one of `libraries`, "form": ...}; GenKnowSub
    merge       one of modjax.merge by name, and its options; what comes out needs no router
    router      one of modjax.routing by name, one's own as "module:function", or the file of a saved one as it lies
                from the library's folder; and its options
    calibrate   so many validation prompts of each training task, which the router's scores are standardised on
    note        a few words for the table

Methods of a library whose folder is "" are left out. Lines may be added and changed between runs of one workdir: only
what changed is evaluated.
"""

from common import base, quick, with_variants
from demo import TASKS

METHODS = {
    "base": {"library": "", "note": "the frozen model alone"},
    "oracle": {"router": {"name": "oracle"}, "note": "the task's own expert"},
    "uniform": {"router": {"name": "uniform", "mix": "parameters"}, "note": "mean of the factors"},
    "uniform_outputs": {"router": {"name": "uniform", "mix": "outputs"}, "note": "mean of the products"},
    "arrow": {"router": {"name": "arrow", "top_k": 4}, "note": "top 4 a token"},
    "arrow_outputs": {"router": {"name": "arrow", "top_k": 4, "mix": "outputs"}, "note": "top 4, outputs mixed"},
    "arrow_top_1": {"router": {"name": "arrow", "top_k": 1}},
    "arrow_all": {"router": {"name": "arrow", "top_k": -1}, "note": "all experts"},
    "arrow_singular": {"router": {"name": "arrow", "length": "singular"}, "note": "scaled prototypes"},
    "spectr": {"router": {"name": "spectr", "top_k": 4}, "note": "top 4 a token"},
    "lag": {"router": {"name": "lag", "retrieve": 8}, "note": "top 4 of 8 retrieved"},
    "seqr": {"router": {"name": "seqr", "top_k": 4}, "calibrate": 4, "note": "calibrated"},
    "logo": {"router": {"name": "logo", "top_k": 4}, "note": "top 4 a prompt"},
    "pooled": {"router": {"name": "pooled", "top_k": 1}, "calibrate": 4, "note": "calibrated, top 1"},
    "pooled_top_3": {"router": {"name": "pooled", "top_k": 3}, "calibrate": 4, "note": "calibrated, top 3"},
    "task_representations": {"router": {"name": "task_representations"}},
    "task_predictor": {"router": {"name": "task_predictor"}},
    "centroid": {"router": {"name": "centroid"}},
    "phatgoose": {"router": {"name": "phatgoose", "steps": 100, "length": 1024}},
    "genknowsub_arrow": {"subtract": {"library": "general"}, "router": {"name": "arrow", "top_k": 4}},
    "merge_uniform": {"merge": {"name": "uniform"}, "note": "factors"},
    "merge_products": {"merge": {"name": "uniform", "form": "products"}, "note": "products, exactly"},
    "ties": {"merge": {"name": "ties"}},
    "dare": {"merge": {"name": "dare"}},
    "magnitude_prune": {"merge": {"name": "magnitude_prune"}},
    "svd": {"merge": {"name": "svd"}},
    "concatenate": {"merge": {"name": "concatenate"}},
    "shared": {"library": "shared", "note": "one expert on all tasks"},
    "mbc_uniform": {"library": "mbc", "router": {"name": "uniform"}},
    "mbc_arrow": {"library": "mbc", "router": {"name": "arrow", "top_k": 4}},
    "mbc_oracle": {"library": "mbc", "router": {"name": "oracle"}, "note": "the cluster's own expert"},
    "poly": {"library": "poly", "router": "../router.safetensors", "note": "skills, weighted by task"},
    "mhr": {"library": "mhr", "router": "../router.safetensors", "note": "skills, weighted by task and head"},
}


def get_config(variants: str | None = None):
    config = base()
    config.leaderboard = {
        "libraries": {"mbc": "", "shared": "", "poly": "", "mhr": "", "general": ""},  # folders, beside config.library
        "methods": METHODS,
        "analyse": ("arrow", "spectr", "seqr", "pooled", "centroid", "mbc_arrow"),  # whose routers are looked at
        "shown": ("dates_from_french", "lists_rest"),  # tasks of which an example of each is shown token by token
    }
    names = [name for name in (variants or "").split(",") if name]
    if "demo" in names:
        names.remove("demo")
        quick(config)
        config.only = TASKS
        config.leaderboard.methods.phatgoose.router.update(steps=16, length=128)
    return with_variants(config, ",".join(names))
