"""Each number that a public function takes: what it cannot be is refused by name, before anything is computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import adapt, cluster, merge, routing
from modjax.adapt.lorahub import LoraHubSettings
from modjax.errors import InputError
from modjax.eval import Sample, evaluate
from modjax.eval.intervals import resample
from modjax.generation import Request
from modjax.models.padding import batched_by_length
from modjax.studies import seeds
from modjax.studies.transfer import choose_pairs
from modjax.train.full import train_full
from modjax.train.gates import phatgoose
from modjax.train.lora import train_library
from modjax.train.poly import train_poly
from modjax.train.settings import Settings

WRONG = {
    "count": (0, -1, 1.5, "1", None, True, float("nan"), [1]),
    "from 0": (-1, 1.5, "1", None, True, np.ones(2)),
    "seed": (-1, 2**32, 10**30, 0.5, "1", None, True, np.int64(-1)),
    "number": (float("nan"), float("inf"), -float("inf"), 1e300, "1", None, True, np.float32(np.inf), jnp.ones(2)),
    "top_k": (0, -2, 1.5, "1", None, True),
}
RATES = ("learning_rate", "weight_decay", "alpha", "clip", "dropout", "warmup")
COUNTS = ("steps", "batch", "length", "rank", "log_every", "loss_chunk", "max_new_tokens")

# {function: {kind: names of its arguments}}
ARGUMENTS = {
    Settings: {"count": COUNTS, "from 0": ("evaluate_every", "save_every"), "seed": ("seed",), "number": RATES},
    LoraHubSettings: {"count": ("budget", "batch", "length"), "number": ("bound", "penalty"), "seed": ("seed",)},
    Request: {"count": ("max_new_tokens", "batch", "every"), "seed": ("seed",), "number": ("temperature",)},
    Sample: {"count": ("length",), "from 0": ("examples",), "seed": ("seed",)},
    "train_library": {"count": ("steps",), "number": ("learning_rate",), "seed": ("seed",)},
    "train_full": {"count": ("steps",), "number": ("learning_rate",)},
    "train_poly": {"count": ("skills", "heads"), "number": ("weights_rate", "learning_rate"), "seed": ("seed",)},
    "phatgoose": {"top_k": ("top_k",), "number": ("temperature",), "count": ("batch", "steps", "length")},
    "adapt.few": {"from 0": ("examples", "validation")},
    "adapt.retrieve": {"count": ("n",), "seed": ("seed",)},
    "adapt.poly": {"count": ("heads",), "number": ("weights_rate",)},
    "adapt.cat": {"count": ("steps",), "number": ("clip",)},
    "evaluate": {"count": ("max_new_tokens", "batch")},
    "routing.arrow": {"top_k": ("top_k",), "number": ("temperature",), "seed": ("seed",)},
    "routing.spectr": {"top_k": ("top_k",), "number": ("temperature",)},
    "routing.seqr": {"top_k": ("top_k",), "number": ("temperature",)},
    "routing.lag": {"top_k": ("top_k",), "number": ("temperature",), "count": ("retrieve",)},
    "routing.pooled": {"top_k": ("top_k",), "number": ("temperature",)},
    "routing.logo": {"top_k": ("top_k",)},
    "routing.centroid": {"top_k": ("top_k",), "number": ("temperature",), "count": ("examples",)},
    "routing.task_predictor": {"top_k": ("top_k",), "number": ("inverse_penalty",), "count": ("examples",)},
    "routing.task_representations": {
        "top_k": ("top_k",),
        "number": ("temperature",),
        "count": ("examples", "centroids"),
    },
    "routing.confident": {
        "number": ("shrinkage", "false_positives"),
        "count": ("examples", "directions"),
    },
    "merge.ties": {"number": ("density",)},
    "merge.magnitude_prune": {"number": ("density",)},
    "merge.dare": {"number": ("density",), "seed": ("seed",)},
    "cluster.mbc": {"count": ("clusters", "components", "restarts"), "number": ("sparsity",), "seed": ("seed",)},
    "cluster.similarity": {"count": ("components",), "number": ("sparsity",)},
    "cluster.random": {"seed": ("seed",)},
    "cluster.embedding": {"count": ("clusters", "restarts"), "seed": ("seed",)},
    "resample": {"count": ("resamples",), "seed": ("seed",)},
    "batched_by_length": {"count": ("batch",)},
    "choose_pairs": {"seed": ("seed",)},
}
CASES = [
    pytest.param(function, name, WRONG[kind], id=f"{getattr(function, '__name__', function)}-{name}")
    for function, kinds in ARGUMENTS.items()
    for kind, names in kinds.items()
    for name in names
]


@pytest.fixture(scope="module")
def functions(word_model, word_tasks, random_library):
    """{name: the function with its other arguments}."""
    sites = {site: word_model.config.sites[site] for site in ("attn.q", "mlp.down")}
    library = random_library(sites, names=["copy", "sort", "count"])
    quiet = {"progress": False, "length": 32}
    found = {
        "train_library": functools.partial(train_library, word_model, word_tasks, **quiet),
        "train_full": functools.partial(train_full, word_model, word_tasks, **quiet),
        "train_poly": functools.partial(train_poly, word_model, word_tasks, **quiet),
        "phatgoose": functools.partial(phatgoose, library, word_model, word_tasks, progress=False),
        "adapt.few": functools.partial(adapt.few, word_tasks),
        "adapt.retrieve": functools.partial(adapt.retrieve, library, word_tasks, by="random"),
        "adapt.poly": functools.partial(adapt.poly, word_model, library, word_tasks, **quiet),
        "adapt.cat": functools.partial(adapt.cat, word_model, library, word_tasks, **quiet),
        "evaluate": functools.partial(evaluate, word_model, word_tasks, max_new_tokens=8, progress=False),
        "resample": functools.partial(resample, [{}], ["copy"]),
        "batched_by_length": functools.partial(batched_by_length, [3, 4]),
        "choose_pairs": functools.partial(choose_pairs, np.eye(4), 3),
        "routing.arrow": functools.partial(routing.arrow, library, prototypes="power"),
        "cluster.random": functools.partial(cluster.random, cluster.Clusters.of("ab", [0, 1], np.eye(2), 0.0)),
        "cluster.mbc": functools.partial(cluster.mbc, library, clusters=2),
        "cluster.embedding": functools.partial(
            cluster.embedding, library, {name: np.ones(2) for name in library.names}, clusters=2
        ),
    }
    for name in ("centroid", "task_predictor", "task_representations", "confident"):
        found[f"routing.{name}"] = functools.partial(getattr(routing, name), library, word_model, word_tasks)
    for name in ARGUMENTS:
        package, _, function = str(name).partition(".")
        if function and name not in found and not callable(name):
            found[name] = functools.partial(getattr({"routing": routing, "merge": merge, "cluster": cluster}[package],
                                                    function), library)  # fmt: skip
    return found


@pytest.mark.parametrize(("function", "name", "values"), CASES)
def test_what_a_number_cannot_be_is_refused_by_name(functions, function, name, values):
    for value in values:
        with pytest.raises(InputError, match=f"^{name}="):
            functions.get(function, function)(**{name: value})


def test_settings_keep_python_values():
    """NumPy and JAX scalars are recorded in files and compiled into programs as the numbers that they are."""
    given = {
        Request: {"max_new_tokens": np.int64(3), "temperature": jnp.float32(0.5), "top_k": np.int64(2)},
        Sample: {"examples": np.int32(3), "seed": jnp.int32(2)},
        LoraHubSettings: {"budget": np.int64(3), "bound": np.float32(0.5)},
    }
    for kind, values in given.items():
        found, expected = kind(**values), kind(**{name: one.item() for name, one in values.items()})
        assert all(type(getattr(found, name)) in (int, float) for name in values) and found == expected


def test_seeds_are_taken_from_arrays(tmp_path):
    asked = []
    study = lambda seed, folder: asked.append((type(seed), folder.name)) or {"methods": []}  # noqa: E731
    seeds(study, tmp_path, np.arange(2))
    assert asked == [(int, "seed-0"), (int, "seed-1")]
    for wrong in (None, 3, [], [-1], ["1"]):
        with pytest.raises(InputError, match="seed"):
            seeds(study, tmp_path, wrong)


def test_the_largest_seed_is_taken_everywhere(random_library, word_tasks):
    library, most = random_library({"attn.q": (8, 8)}), 2**32 - 1
    assert merge.dare(library, seed=most).infos[0].training
    assert len(cluster.random(cluster.Clusters.of("ab", [0, 1], np.eye(2), 0.0), most).labels) == 2
    assert len(adapt.retrieve(library, word_tasks, n=2, by="random", seed=most)["copy"]) == 2
    assert Settings(seed=most).seed == Request(seed=most).seed == Sample(seed=most).seed == most
    assert np.isfinite(jax.random.uniform(jax.random.key(most)))
