"""Many methods on one library: scores with intervals, paired differences, costs, and how the routers divide the work.

Reproduces: the methods of arXiv 2405.11157 and its follow-ups, side by side, at small scale. Cost: `demo` trains six
more libraries on the demo's tasks and scores 57 methods, about an hour on two CPU cores. Expect: docs/methods.md.

    make leaderboard        or, after `make demo`,

    modjax leaderboard --config=configs/leaderboard.py:demo --workdir=workdir/leaderboard --report=report/leaderboard
    modjax leaderboard --config=configs/leaderboard.py:quick,library=workdir/private/library --workdir=workdir/board

`split=validation` compares methods on validation examples, to choose one by.

A method is one line of METHODS, its name and the dictionary described in modjax.studies.methods. Methods of libraries
and models without a folder are left out. Lines may be added and changed between runs with one workdir: only lines that
changed are measured again.
"""

import pathlib

from common import adaptation, base, demo, validated, with_variants
from ml_collections import ConfigDict

NEUTRAL = str(pathlib.Path(__file__).with_name("neutral.txt"))  # text of no task
METHODS = {
    "base": {"library": "", "note": "the frozen model alone"},
    "full": {"model": "full", "note": "all weights, on all tasks"},
    "shared": {"library": "shared", "note": "one expert on all tasks"},
    "oracle": {"router": {"name": "oracle"}, "note": "the task's own expert"},
    "uniform": {"router": {"name": "uniform", "mix": "parameters"}, "note": "mean of the factors"},
    "uniform_outputs": {"router": {"name": "uniform", "mix": "outputs"}, "note": "mean of the products"},
    "arrow": {"router": {"name": "arrow", "top_k": 4}, "note": "top 4 per token"},
    "arrow_outputs": {"router": {"name": "arrow", "top_k": 4, "mix": "outputs"}, "note": "top 4, outputs mixed"},
    "arrow_top_1": {"router": {"name": "arrow", "top_k": 1}},
    "arrow_all": {"router": {"name": "arrow", "top_k": -1}, "note": "all experts"},
    "arrow_singular": {"router": {"name": "arrow", "length": "singular"}, "note": "scaled prototypes"},
    "arrow_w0": {"router": {"name": "arrow", "of": "weights"}, "note": "prototypes of W0 + dW"},
    "arrow_unit": {"router": {"name": "arrow", "input_norm": "unit", "temperature": 0.1}, "note": "unit inputs"},
    "spectr": {"router": {"name": "spectr", "top_k": 4}, "note": "top 4 per token"},
    "lag": {"router": {"name": "lag", "retrieve": 8}, "note": "top 4 of 8 retrieved"},
    "seqr": {"router": {"name": "seqr", "top_k": 4}, "calibrate": 4, "note": "calibrated on tasks"},
    "seqr_neutral": {"router": {"name": "seqr", "top_k": 4}, "calibrate": NEUTRAL, "note": "on other text"},
    "logo": {"router": {"name": "logo", "top_k": 4}, "note": "top 4 per prompt"},
    "pooled": {"router": {"name": "pooled", "top_k": 1}, "calibrate": 4, "note": "on tasks, top 1"},
    "pooled_top_3": {"router": {"name": "pooled", "top_k": 3}, "calibrate": 4, "note": "on tasks, top 3"},
    "pooled_neutral": {"router": {"name": "pooled", "top_k": 1}, "calibrate": NEUTRAL, "note": "on other text, top 1"},
    "task_representations": {"router": {"name": "task_representations"}},
    "ariadne": {"router": {"name": "task_representations", "split": "train", "centroids": 4, "top_k": 1}},
    "confident": {"router": {"name": "confident"}, "note": "else the mean of all"},
    "task_predictor": {"router": {"name": "task_predictor"}},
    "centroid": {"router": {"name": "centroid"}},
    "phatgoose": {"router": {"name": "phatgoose"}},
    "genknowsub_arrow": {"subtract": {"library": "general"}, "router": {"name": "arrow", "top_k": 4}},
    "merge_uniform": {"merge": {"name": "uniform"}, "note": "factors"},
    "merge_products": {"merge": {"name": "uniform", "form": "products"}, "note": "exact products"},
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
    "poly": {"library": "poly", "router": {"name": "../router.safetensors"}, "note": "skills, weighted by task"},
    "mhr": {"library": "mhr", "router": {"name": "../router.safetensors"}, "note": "skills, weighted by task and head"},
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
TRAINED = ("random", "embedding", "shared_a", "poly", "mhr", "full")  # on top of the demo's private, mbc and shared


def get_config(variants: str | None = None):
    config = base()
    adaptation(config)
    config.leaderboard = {
        "libraries": dict.fromkeys(("mbc", "shared", "general"), ""),  # folders; methods of "" are left out
        "models": {},  # folders of other base models
        "train": (),  # kinds of modjax.studies.libraries that the job trains in WORKDIR and adds
        "rows": {"mbc": 3, "random": 3, "embedding": 3, "shared": 5, "poly": 16, "mhr": 16, "full": 16},  # per step
        "methods": ConfigDict(METHODS, allow_dotted_keys=True),
        "analyse": ("arrow", "spectr", "seqr", "pooled", "centroid", "mbc_arrow"),  # methods whose routers are analysed
        "shown": ("dates_from_french", "lists_rest"),  # tasks of which an example is shown token by token
    }
    config = validated(with_variants(config, variants, demo=after_demo))
    # Gates are trained for as long as adapted experts.
    gates = {key: config.train[key] for key in ("steps", "epochs")} | {"length": min(1024, config.train.length)}
    config.leaderboard.methods.phatgoose.router.update(gates)
    return config


def after_demo(config):
    """All methods on the tasks of the demo, with the libraries that `make demo` leaves and those of TRAINED.

    The shared expert stands in for one of general text, whose knowledge GenKnowSub subtracts.
    """
    demo(config)
    config.cluster.clusters = 5
    config.library = "workdir/demo/private/library"
    shared = "workdir/demo/shared/library"
    config.leaderboard.libraries = {"mbc": "workdir/demo/mbc/library", "shared": shared, "general": shared}
    config.leaderboard.train = TRAINED
