"""Every method on one library: scores with intervals, pairs compared, costs, and how the routers divide the work.

    modjax leaderboard --config=configs/leaderboard.py:demo --config.library=workdir/demo/private/library \\
        --workdir=workdir/leaderboard --report=report
    ... --config.leaderboard.libraries.mbc=workdir/demo/mbc/library      adds the methods of another library

`make leaderboard` trains the libraries that this takes and runs it. A method is one line of METHODS, its name and what
it is made of, in this order:

    model       one of `models`, another base model, which stands alone: all weights fine-tuned
    library     which of `libraries`; by default "library", that of config.library; "" is the base model alone
    subtract    general experts whose mean is taken off: {"library": one of `libraries`, "form": ...}; GenKnowSub
    merge       one of modjax.merge by name, and its options; what comes out needs no router
    adapt       an expert of each held-out task, from a few of its examples; options that differ from config.adapt
    router      one of modjax.routing by name, one's own as "module:function", or the file of a saved one as it lies
                from the library's folder; and its options
    calibrate   so many validation prompts of each training task, which the router's scores are standardised on
    note        a few words for the table

Methods of a library or model whose folder is "" are left out. Lines may be added and changed between runs of one
workdir: only what changed is evaluated.
"""

import pathlib

from adapt import few_shot
from common import base

NEUTRAL = str(pathlib.Path(__file__).with_name("neutral.txt"))  # text of no task
METHODS = {
    "base": {"library": "", "note": "the frozen model alone"},
    "full": {"model": "full", "note": "all weights, on all tasks"},
    "shared": {"library": "shared", "note": "one expert on all tasks"},
    "oracle": {"router": {"name": "oracle"}, "note": "the task's own expert"},
    "uniform": {"router": {"name": "uniform", "mix": "parameters"}, "note": "mean of the factors"},
    "uniform_outputs": {"router": {"name": "uniform", "mix": "outputs"}, "note": "mean of the products"},
    "arrow": {"router": {"name": "arrow", "top_k": 4}, "note": "top 4 a token"},
    "arrow_outputs": {"router": {"name": "arrow", "top_k": 4, "mix": "outputs"}, "note": "top 4, outputs mixed"},
    "arrow_top_1": {"router": {"name": "arrow", "top_k": 1}},
    "arrow_all": {"router": {"name": "arrow", "top_k": -1}, "note": "all experts"},
    "arrow_singular": {"router": {"name": "arrow", "length": "singular"}, "note": "scaled prototypes"},
    "arrow_w0": {"router": {"name": "arrow", "of": "weights"}, "note": "prototypes of W0 + dW"},
    "arrow_unit": {"router": {"name": "arrow", "input_norm": "unit", "temperature": 0.1}, "note": "unit inputs"},
    "spectr": {"router": {"name": "spectr", "top_k": 4}, "note": "top 4 a token"},
    "lag": {"router": {"name": "lag", "retrieve": 8}, "note": "top 4 of 8 retrieved"},
    "seqr": {"router": {"name": "seqr", "top_k": 4}, "calibrate": 4, "note": "calibrated on tasks"},
    "seqr_neutral": {"router": {"name": "seqr", "top_k": 4}, "calibrate": NEUTRAL, "note": "on other text"},
    "logo": {"router": {"name": "logo", "top_k": 4}, "note": "top 4 a prompt"},
    "pooled": {"router": {"name": "pooled", "top_k": 1}, "calibrate": 4, "note": "on tasks, top 1"},
    "pooled_top_3": {"router": {"name": "pooled", "top_k": 3}, "calibrate": 4, "note": "on tasks, top 3"},
    "pooled_neutral": {"router": {"name": "pooled", "top_k": 1}, "calibrate": NEUTRAL, "note": "on other text, top 1"},
    "task_representations": {"router": {"name": "task_representations"}},
    "task_predictor": {"router": {"name": "task_predictor"}},
    "centroid": {"router": {"name": "centroid"}},
    "phatgoose": {"router": {"name": "phatgoose"}},
    "genknowsub_arrow": {"subtract": {"library": "general"}, "router": {"name": "arrow", "top_k": 4}},
    "merge_uniform": {"merge": {"name": "uniform"}, "note": "factors"},
    "merge_products": {"merge": {"name": "uniform", "form": "products"}, "note": "products, exactly"},
    "ties": {"merge": {"name": "ties"}},
    "dare": {"merge": {"name": "dare"}},
    "magnitude_prune": {"merge": {"name": "magnitude_prune"}},
    "svd": {"merge": {"name": "svd"}},
    "concatenate": {"merge": {"name": "concatenate"}},
    "shared_a_seqr": {"library": "shared_a", "router": {"name": "seqr", "top_k": 4}, "calibrate": 4},
    "mbc_uniform": {"library": "mbc", "router": {"name": "uniform"}},
    "mbc_arrow": {"library": "mbc", "router": {"name": "arrow", "top_k": 4}},
    "mbc_oracle": {"library": "mbc", "router": {"name": "oracle"}, "note": "the cluster's own expert"},
    "mbc_task_predictor": {"library": "mbc", "router": {"name": "task_predictor"}, "note": "of tasks, for clusters"},
    "random_arrow": {"library": "random", "router": {"name": "arrow", "top_k": 4}, "note": "clusters at random"},
    "embedding_arrow": {"library": "embedding", "router": {"name": "arrow", "top_k": 4}, "note": "clusters of texts"},
    "poly": {"library": "poly", "router": "../router.safetensors", "note": "skills, weighted by task"},
    "mhr": {"library": "mhr", "router": "../router.safetensors", "note": "skills, weighted by task and head"},
    "adapt_lora": {"adapt": {"method": "lora"}, "note": "few-shot, from scratch"},
    "adapt_shared": {"library": "shared", "adapt": {"method": "shared"}, "note": "few-shot, from the shared expert"},
    "adapt_mu": {"adapt": {"method": "mu"}, "note": "few-shot, from the mean"},
    "adapt_poly": {"adapt": {"method": "poly"}, "note": "few-shot, weights and experts"},
    "adapt_poly_z": {"adapt": {"method": "poly_z"}, "note": "few-shot, weights alone"},
    "adapt_mhr": {"adapt": {"method": "mhr"}, "note": "few-shot, weights by head"},
    "adapt_lorahub": {"adapt": {"method": "lorahub"}, "note": "few-shot, no gradients"},
    "adapt_cat": {"adapt": {"method": "cat"}, "note": "few-shot, weights by layer"},
    "adapt_mu_lora": {"adapt": {"method": "mu", "retrieve": "lora"}, "note": "from 5 by LoRA cosine"},
    "adapt_poly_random": {"adapt": {"method": "poly", "retrieve": "random"}, "note": "from 5 at random"},
    "adapt_poly_lora": {"adapt": {"method": "poly", "retrieve": "lora"}, "note": "from 5 by LoRA cosine"},
    "adapt_poly_svd": {"adapt": {"method": "poly", "retrieve": "svd"}, "note": "from 5 by SVD embedding"},
    "adapt_mbc_poly": {"library": "mbc", "adapt": {"method": "poly"}, "note": "from cluster experts"},
}
LIBRARIES = ("mbc", "shared", "shared_a", "random", "embedding", "poly", "mhr", "general")


def get_config(variants: str | None = None):
    config = few_shot(base(), variants)
    config.leaderboard = {
        "libraries": dict.fromkeys(LIBRARIES, ""),  # their folders, beside config.library
        "models": {"full": ""},
        "methods": METHODS,
        "analyse": ("arrow", "spectr", "seqr", "pooled", "centroid", "mbc_arrow"),  # whose routers are looked at
        "shown": ("dates_from_french", "lists_rest"),  # tasks of which an example of each is shown token by token
    }
    # Gates are trained for as many steps as adapted experts.
    config.leaderboard.methods.phatgoose.router.update(steps=config.train.steps, length=min(1024, config.train.length))
    return config
