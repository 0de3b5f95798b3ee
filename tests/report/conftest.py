"""Made-up results of an experiment, with the sizes and shapes of real ones."""

import numpy as np
import pytest

from modjax.report.page import render

FAMILIES = {
    "arithmetic": ["add_two_numbers", "subtract_numbers", "count_items"],
    "string": ["reverse_words", "last_letter", "upper_case", "first_words"],
    "sentiment": ["film_sentiment", "review_polarity", "tone_of_message"],
    "extraction": ["person_name", "date_in_text", "city_of_address"],
    "translation": ["english_to_french"],
}
HELD_OUT = {"string": "join_with_commas", "sentiment": "emotion_of_tweet", "arithmetic": "larger_number"}
METHODS = {
    "Base model": ("no experts", 2.91, 3.32),
    "Shared": ("one expert for all tasks", 1.62, 2.31),
    "Uniform (private)": ("mean of all experts", 2.14, 2.17),
    "Arrow (private)": ("top-4 per token", 1.71, 2.09),
    "Arrow (MBC)": ("top-2 per token", 1.48, 1.98),
    "SpectR (MBC)": ("top-2 per token", 1.45, 2.02),
    "Oracle": ("each task's own expert", 1.15, None),
}
SENTENCES = [
    "Reverse the order of the words.\nInput: the quick brown fox jumps over the lazy dog\nOutput:",
    "Is the opinion of this film positive or negative? A slow start, yet I left the cinema smiling. Answer:",
    "Which city is named in the address? 14 Harbour Road, Bergen, Norway. City:",
    "What is 48 plus 17? Give the number alone. Answer:",
]


def _scores(rng, loss):
    if loss is None:
        return {"loss": None, "exact_match": float("nan"), "rouge_l": None, "examples": 96}
    match = float(np.clip(0.72 - 0.24 * loss + 0.02 * rng.standard_normal(), 0, 1))
    return {"loss": loss, "exact_match": match, "rouge_l": min(1.0, match + 0.11), "examples": 320}


def _methods(rng):
    return [
        {
            "name": name,
            "note": note,
            "in_distribution": _scores(rng, inside),
            "held_out": _scores(rng, outside) | {"examples": 96},
            "seconds": {
                "train": None if name == "Base model" else 95.2,
                "evaluate": float(rng.uniform(12, 40)),
            },
            "routing_accuracy": float(rng.uniform(0.2, 0.6)) if note.startswith("top") else None,
        }
        for name, (note, inside, outside) in METHODS.items()
    ]


def _task(rng, name, family, cluster):
    scores = {"loss": {}, "exact_match": {}, "rouge_l": {}}
    difficulty = rng.uniform(-0.7, 0.7)
    for method, (_, inside, outside) in METHODS.items():
        level = outside if cluster is None else inside
        loss = None if level is None else max(0.05, level + difficulty + 0.15 * rng.standard_normal())
        for key, value in _scores(rng, loss).items():
            if key in scores:
                scores[key][method] = value
    return {"name": name, "family": family, "held_out": cluster is None, "cluster": cluster, **scores}


def _curve(rng, name, experts, steps=400):
    places = np.arange(1, steps + 1)
    checks = list(range(50, steps + 1, 50))

    def losses(at, noise, floor):
        return (floor + 2.2 * np.exp(-np.asarray(at) / 60) + noise * rng.standard_normal(len(at))).tolist()

    floors = dict(zip(experts, rng.uniform(0.5, 1.7, len(experts)), strict=True))
    return {
        "name": name,
        "steps": places.tolist(),
        "loss": {expert: losses(places, 0.12, floor) for expert, floor in floors.items()},
        "validation": {
            "steps": checks,
            "loss": {expert: losses(checks, 0.02, floor + 0.12) for expert, floor in floors.items()},
        },
    }


def _similarity(rng, names, labels, families):
    labels = np.asarray(labels)
    matrix = 0.12 + 0.4 * (labels[:, None] == labels[None, :]) + 0.05 * rng.standard_normal((len(names),) * 2)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    return {
        "experts": names,
        "similarity": matrix.tolist(),
        "labels": labels.tolist(),
        "families": families,
        "adjusted_rand": 0.83,
    }


def _routing(rng, library, text, experts, expected, layers=30):
    words = text.replace("\n", " \n ").split(" ")
    tokens = [word if place == 0 or word == "\n" else " " + word for place, word in enumerate(words)]
    scores = rng.standard_normal((layers, len(tokens), len(experts))) + 1.2 * rng.standard_normal(
        (layers, 1, len(experts))
    )
    scores[..., experts.index(expected)] += 1.5
    scores[scores < np.sort(scores, axis=-1)[..., -4, None]] = -np.inf
    weights = np.exp(scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    return {
        "library": library,
        "text": text,
        "tokens": tokens,
        "experts": experts,
        "weights": np.round(weights, 3).tolist(),
        "expected": expected,
    }


def _paired(rng, part, names, losses):
    difference = np.subtract.outer(losses, losses)
    half = np.abs(rng.normal(0.06, 0.02, difference.shape))
    half = (half + half.T) / 2
    below = np.clip(0.5 - difference / (4 * half), 0, 1)
    np.fill_diagonal(below, 0)
    fields = {"difference": difference, "low": difference - half, "high": difference + half, "below": below}
    return {"part": part, "metric": "loss", "names": names, **{key: value.tolist() for key, value in fields.items()}}


def _analysis(rng, name, experts, layers=30, sites=("attn.q", "attn.k", "attn.v", "attn.o")):
    use = rng.dirichlet(np.full(len(experts), 0.7), (layers, len(sites)))
    shape = (layers, len(sites))
    return {
        "name": name,
        "experts": experts,
        "sites": list(sites),
        "examples": 112,
        "tokens": 5210,
        "use": use.round(4).tolist(),
        "entropy": rng.uniform(0.4, 1.2, shape).tolist(),
        "effective": np.exp(-(use * np.log(use)).sum(-1)).tolist(),
        "tokens_right": rng.uniform(0.08, 0.3, shape).tolist(),
        "examples_right": rng.uniform(0.2, 0.9, shape).tolist(),
        "accuracy": 0.61,
    }


def experiment(seed=0):
    """Results with every section of the report, in the form of `modjax.report`."""
    rng = np.random.default_rng(seed)
    names = [name for members in FAMILIES.values() for name in members]
    families = [family for family, members in FAMILIES.items() for _ in members]
    order = list(FAMILIES)
    labels = [min(order.index(family), 3) for family in families]
    labels[6] = 3
    mbc = [f"cluster {label}" for label in range(4)]
    tasks = [_task(rng, *row) for row in zip(names, families, labels, strict=True)]
    tasks += [_task(rng, name, family, None) for family, name in HELD_OUT.items()]
    private = ["reverse_words", "film_sentiment", "city_of_address", "add_two_numbers"]
    return {
        "title": "Private, shared and clustered experts",
        "subtitle": "Every method of the library against the base model, on seventeen short-answer tasks.",
        "facts": {
            "Model": "smollm2-135m (bfloat16)",
            "Tasks": "14 trained, 3 held out",
            "Steps": 400,
            "Rows a step": "14 × 4 of 256 tokens",
            "Rank, alpha": "4, 16",
            "Device": "16 CPU cores",
            "Wall-clock": "6 min 41 s",
            "Seed": 42,
        },
        "methods": _methods(rng),
        "tasks": tasks,
        "paired": [
            _paired(rng, "in_distribution", list(METHODS), [inside for _, inside, _ in METHODS.values()]),
            _paired(rng, "held_out", list(METHODS)[:-1], [outside for _, _, outside in METHODS.values() if outside]),
        ],
        "analysis": [_analysis(rng, "Arrow (MBC)", mbc)],
        "curves": [
            _curve(rng, "private", names),
            _curve(rng, "MBC clusters", mbc),
            _curve(rng, "shared", ["shared"]),
        ],
        "similarity": _similarity(rng, names, labels, families),
        "routing": [
            *(_routing(rng, "private", text, names, expert) for text, expert in zip(SENTENCES, private, strict=True)),
            _routing(rng, "MBC clusters", SENTENCES[0], mbc, "cluster 1"),
        ],
        "stages": [
            {"name": "load the model", "seconds": 3.4},
            {"name": "train private", "seconds": 93.1},
            {"name": "cluster", "seconds": 0.6},
            {"name": "train MBC clusters", "seconds": 95.2},
            {"name": "train shared", "seconds": 71.9},
            {"name": "evaluate", "seconds": 136.8},
        ],
        "config": {
            "model": {"name": "smollm2-135m", "dtype": "bfloat16", "quantize": None},
            "train": {"steps": 400, "batch": 4, "rank": 4, "alpha": 16.0, "learning_rate": 1e-3, "seed": 42},
            "cluster": {"clusters": 4, "sparsity": 0.5, "components": 64},
            "route": {"top_k": [1, 2, 4], "temperature": 1.0},
        },
    }


def leaderboard(seed=0):
    """The same with intervals, costs in memory, and a method that failed."""
    results, rng = experiment(seed), np.random.default_rng(seed)
    for method in results["methods"]:
        for split in ("in_distribution", "held_out"):
            scores, widths = method[split], {"loss": 0.09, "exact_match": 0.04, "rouge_l": 0.03}
            scores["intervals"] = {
                key: [scores[key] - width * rng.uniform(0.8, 1), scores[key] + width * rng.uniform(0.8, 1)]
                for key, width in widths.items()
                if scores[key] is not None
            }
        method["seconds"] |= {
            "build": float(rng.uniform(0.1, 9)),
            "compile": 5.2,
            "token": float(rng.uniform(0.001, 0.003)),
        }
        method["bytes"] = {"experts": 8.2e6, "temporary": float(rng.uniform(1e8, 4e8)), "peak": None}
    results["methods"].append({"name": "PhatGoose", "error": "expert 'a' was trained on no known task"})
    return results


@pytest.fixture
def compared():
    return leaderboard()


@pytest.fixture
def results():
    return experiment()


@pytest.fixture(scope="session")
def page_text():
    return render(experiment())
