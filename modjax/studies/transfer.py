"""Transfer study: whether the similarity of two tasks' experts predicts that joint training helps (arXiv 2405.11157).

Pairs of private experts are chosen over the whole range of similarity, and one joint expert is trained for each pair.
Its gain is the decrease of its tasks' test losses relative to the private experts, in nats per target token:

    gain = mean over the pair's two experts of (private loss - joint loss) on that expert's tasks

The claim (section 3.1) is that gain rises with similarity. Pairs that share a task are not independent, which the
bootstrap over pairs ignores: its interval is somewhat too narrow.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from modjax import arguments
from modjax.cluster import similarity
from modjax.cluster.similarity import checked_similarity
from modjax.data.tasks import Task, Tasks, checked_tasks
from modjax.errors import InputError
from modjax.eval.intervals import RESAMPLES, Estimate
from modjax.eval.likelihood import target_loss
from modjax.eval.sample import Sample, prepared
from modjax.experts.library import Library
from modjax.files import write_json
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.report import transfer as picture
from modjax.routing.oracle import oracle
from modjax.studies import content
from modjax.studies.stages import Stages
from modjax.train.lora import train_library
from modjax.train.settings import Settings


class Bin(NamedTuple):
    """Pairs of neighbouring similarity."""

    low: float  # the least similarity of its pairs
    high: float  # the greatest
    pairs: int
    gain: Estimate  # the mean


def transfer(
    model: Model,
    tasks: Tasks,
    library: Library,
    folder: str | pathlib.Path,
    settings: Mapping[str, Any],
    sample: Sample = Sample(),  # noqa: B008, frozen
    pairs: int = 48,
    bins: int = 4,
    seed: int = 0,
    sparsity: float = 0.5,
    components: int = 64,
) -> dict[str, Any]:
    """Runs the study: the gain of joint training of each pair, its rank correlation with similarity, and a picture.

    Compute is matched by rows: a joint expert has twice the rows per step of a private one, for as many steps, and its
    two tasks have equal amounts of text, so that it reads as much of each task as that task's private expert did.

    Args:
      library: private experts, trained with `settings`.
      folder: for the joint experts, transfer.json, transfer.svg and transfer.png; repeated with the same folder the
        study resumes.
      settings: of training, see `modjax.train.settings.Settings`.
      sample: the test examples of the losses.
      pairs, seed: as in `choose_pairs`.
      bins: of equally many pairs, see `binned`.
      sparsity, components: of `modjax.cluster.similarity`.

    Returns {"spearman": Estimate, "bins": [Bin], "pairs": [...]} as plain data. Raises InputError for experts that are
    known to have been trained with other settings.
    """
    arguments.instance("model", model, Model)
    checked_tasks(tasks)
    arguments.instance("library", library, Library)
    arguments.instance("sample", sample, Sample)
    settings = dataclasses.asdict(arguments.made(Settings, arguments.mapping("settings", settings, "{setting: value}")))
    _check_comparable(library, settings)
    s_EE = np.asarray(similarity(library, sparsity, components))
    chosen = choose_pairs(s_EE, pairs, seed)
    stages = Stages(folder)
    stages.claim(
        content.of_study(model, tasks, settings, sample)
        | {"library": content.of_library(library), "pairs": pairs, "seed": seed}
        | {"sparsity": sparsity, "components": components}
    )
    joint = stages.library("joint", lambda own: _joint(model, tasks, library, chosen, own, settings))
    stages.claim({"joint": joint.fingerprint}, "trained", ["losses.json"])
    private = library[sorted({i for pair in chosen for i in pair})]
    kinds = {"private": private, "joint": joint}
    measured = stages.json("losses", lambda: {kind: losses(model, own, tasks, sample) for kind, own in kinds.items()})
    names = joint_names(library, chosen)
    rows = [_row(library, tasks, measured, names[pair], *pair, float(s_EE[pair])) for pair in chosen]
    similarities, gains = ([row[key] for row in rows] for key in ("similarity", "gain"))
    found = {
        "spearman": spearman(similarities, gains).as_json(),
        "bins": [one._asdict() | {"gain": one.gain.as_json()} for one in binned(similarities, gains, bins)],
        "pairs": rows,
    }
    from_first(lambda: _leave(found, stages.folder))
    return found


def choose_pairs(similarity_EE: np.ndarray, count: int, seed: int = 0) -> list[tuple[int, int]]:
    """`count` pairs of experts spread evenly over the ranks of their similarity, from the least to the most similar.

    All pairs, sorted by similarity, are divided into `count` parts of equal size. From each part the pair is taken
    whose experts are in the fewest pairs so far, so that no task dominates the result; `seed` breaks ties.

    Raises InputError for fewer than 3 pairs, or more than there are.
    """
    similarity_EE = checked_similarity(similarity_EE)
    first, second = np.triu_indices(len(similarity_EE), 1)
    if not 3 <= arguments.whole("pairs", count) <= len(first):
        raise InputError(f"{count} pairs of {len(similarity_EE)} experts; expected 3 to {len(first)}")
    rng = np.random.default_rng(arguments.seed("seed", seed))
    used_E = np.zeros(len(similarity_EE), int)
    chosen = []
    for part in np.array_split(np.argsort(np.asarray(similarity_EE)[first, second], kind="stable"), count):
        part = rng.permutation(part)
        pair = part[np.argmin(used_E[first[part]] + used_E[second[part]])]
        chosen.append((int(first[pair]), int(second[pair])))
        used_E[list(chosen[-1])] += 1
    return chosen


def levelled(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with training examples repeated until each has as much text as the one with the most.

    Training rows are drawn from the packed rows of all tasks of an expert. Without this, the task with more text would
    have most of a joint expert's training; with it each has half, as much as its private expert had.
    """
    sizes = [sum(len(one.source) + len(one.target) for one in task.split("train")) for task in tasks]
    found = []
    for task, size in zip(tasks, sizes, strict=True):
        own = task.split("train")
        repeated = itertools.islice(itertools.cycle(own), round(len(own) * max(sizes) / max(size, 1)))
        rest = (one for one in task if one.split != "train")
        found.append(dataclasses.replace(task, examples=(*repeated, *rest)))
    return found


def joint_names(library: Library, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """{pair: the name of its joint expert}, all different, though "a + b" may also be the name of an expert."""
    found: dict[tuple[int, int], str] = {}
    for i, j in pairs:
        name = f"{library.names[i]} + {library.names[j]}"
        found[i, j] = name if name not in found.values() else f"{name} ({i}, {j})"
    return found


def losses(
    model: Model,
    library: Library,
    tasks: Tasks,
    sample: Sample = Sample(),  # noqa: B008, frozen
    batch: int = 32,
) -> dict[str, dict[str, float]]:
    """{expert: {task: loss}} of every expert on each task it was trained on, in nats per target token.

    The examples of a task are the same for every expert.
    """
    encoded = {
        name: [one.encoded for one in prepared(model, tasks.select([name]), sample)]
        for name in dict.fromkeys(task for own in library.tasks for task in own)
    }
    cells = [(e, task) for e, own in enumerate(library.tasks) for task in own]
    read = [one for _, task in cells for one in encoded[task]]
    ids = [e for e, task in cells for _ in encoded[task]]
    totals_n, counts_n = target_loss(model, read, model.bind(library, oracle(library)), ids, batch)
    ends = np.cumsum([len(encoded[task]) for _, task in cells])[:-1]
    found: dict[str, dict[str, float]] = {name: {} for name in library.names}
    for (e, task), nats, count in zip(cells, np.split(totals_n, ends), np.split(counts_n, ends), strict=True):
        found[library.names[e]][task] = float(nats.sum() / count.sum())
    return found


def spearman(x_P: Sequence[float], y_P: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Spearman's rank correlation, ties sharing their mean rank, with a bootstrap interval over the P pairs.

    NaN if all values of one side are equal; resamples in which they are do not count for the interval.
    """
    x_P, y_P = np.asarray(x_P, np.float64), np.asarray(y_P, np.float64)
    drawn_SP = np.random.default_rng(seed).integers(0, len(x_P), (resamples, len(x_P)))
    rho_S = _rank_correlation(x_P[drawn_SP], y_P[drawn_SP])
    return Estimate.of(float(_rank_correlation(x_P[None], y_P[None])[0]), rho_S)


def binned(similarity_P: Sequence[float], gain_P: Sequence[float], bins: int, resamples: int = RESAMPLES) -> list[Bin]:
    """The mean gain in bins of equally many pairs, cut at quantiles of similarity, from the least to the most similar.

    Raises InputError for fewer pairs than bins.
    """
    similarity_P, gain_P = np.asarray(similarity_P, np.float64), np.asarray(gain_P, np.float64)
    if not 1 <= arguments.whole("bins", bins) <= len(gain_P):
        raise InputError(f"{bins} bins of {len(gain_P)} pairs; expected 1 to {len(gain_P)}")
    found = []
    for number, part in enumerate(np.array_split(np.argsort(similarity_P, kind="stable"), bins)):
        drawn_Sn = np.random.default_rng(number).choice(gain_P[part], (resamples, len(part)))
        gain = Estimate.of(float(gain_P[part].mean()), drawn_Sn.mean(axis=1))
        found.append(Bin(*map(float, similarity_P[part[[0, -1]]]), len(part), gain))
    return found


def _check_comparable(library, settings) -> None:
    if settings.get("patience"):
        raise InputError("patience: expected 0, because experts that stop early have no matched compute")
    if settings.get("epochs"):
        raise InputError("epochs: expected 0, because the compute of private and joint experts is matched by steps")
    for info in library.infos:
        had = {"rank": info.rank, "alpha": info.alpha} | dict(info.training)
        for key in ("rank", "alpha", "steps", "learning_rate"):
            if key in had and had[key] != settings[key]:
                raise InputError(
                    f"expert {info.name!r} was trained with {key} = {had[key]}, the joint experts with "
                    f"{settings[key]}; expected the same: private and joint experts are compared at matched compute"
                )


def _joint(model, tasks, library, pairs, folder, settings) -> Library:
    """One expert per pair. Each has copies of its tasks under its own names, repeated as often as the pair needs."""
    names = joint_names(library, pairs)
    groups = {names[pair]: library.tasks[pair[0]] + library.tasks[pair[1]] for pair in pairs}
    own = {
        group: [dataclasses.replace(task, name=f"{pair} {task.name}") for task in levelled([tasks[n] for n in names])]
        for pair, (group, names) in enumerate(groups.items())
    }
    renamed = {group: [task.name for task in one] for group, one in own.items()}
    settings = {**settings, "batch": 2 * settings["batch"]}
    joint = train_library(model, Tasks(itertools.chain(*own.values())), renamed, folder, **settings)
    infos = (dataclasses.replace(info, tasks=tuple(groups[info.name])) for info in joint.infos)
    return dataclasses.replace(joint, infos=tuple(infos))


def _row(library, tasks, measured, name, i, j, similarity) -> dict[str, Any]:
    """The losses and gains of one pair; name: of its joint expert."""
    names, joint = [library.names[i], library.names[j]], measured["joint"][name]
    own = {name: measured["private"][name] for name in names}
    private = [float(np.mean(list(own[name].values()))) for name in names]
    together = [float(np.mean([joint[task] for task in own[name]])) for name in names]
    gains = [before - after for before, after in zip(private, together, strict=True)]
    return {
        "names": names,
        "families": tasks.families_of([library.tasks[e] for e in (i, j)]),
        "similarity": similarity,
        "private": private,
        "joint": together,
        "gains": gains,
        "gain": float(np.mean(gains)),
    }


def _leave(found, folder) -> None:
    write_json(folder / "transfer.json", found)
    picture.write(found, folder / "transfer")


def _rank_correlation(x_SP, y_SP):
    """float64[S], the correlation of the ranks in each row."""
    ranks = (rankdata(side_SP, axis=1) for side_SP in (x_SP, y_SP))
    x_SP, y_SP = (side_SP - side_SP.mean(axis=1, keepdims=True) for side_SP in ranks)
    with np.errstate(invalid="ignore"):  # 0 / 0 where all values of a row are equal
        return (x_SP * y_SP).sum(axis=1) / np.sqrt((x_SP**2).sum(axis=1) * (y_SP**2).sum(axis=1))
