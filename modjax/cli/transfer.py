"""`modjax transfer`: does the similarity of two tasks' experts say whether training them together helps?"""

import dataclasses
import itertools

import numpy as np

from modjax.cli import build, session
from modjax.cluster import similarity
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval.sample import Sample
from modjax.experts.library import Library
from modjax.files import write_json
from modjax.report import numbers
from modjax.report import transfer as picture
from modjax.studies.stages import Stages
from modjax.studies.transfer import binned, choose_pairs, levelled, losses, spearman
from modjax.train.lora import train_library

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = (
    "modjax transfer --config=configs/transfer.py:quick,library=workdir/private/library --workdir=workdir/transfer"
)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/joint/library, an expert for each pair, transfer.json, and transfer.svg and .png.

    Compute is matched by rows: a joint expert has twice the rows a step of a private one, for as many steps, and both
    of its tasks have as much text, so that it reads as much of each as that task's private expert did.
    """
    folder = session.enter(workdir, config)
    library, tasks = build.library(config), build.tasks(config)
    _check_comparable(library, config.train)
    s_EE = np.asarray(similarity(library, **_those(config.cluster, "sparsity", "components")))
    pairs = choose_pairs(s_EE, config.transfer.pairs, config.transfer.seed)
    stages = Stages(folder)
    model = build.model(config)
    groups = {f"{library.names[i]} + {library.names[j]}": library.tasks[i] + library.tasks[j] for i, j in pairs}
    joint = stages.library("joint", lambda own: _trained(model, tasks, groups, own, config.train))
    sample = Sample.of(config.evaluate)
    private = library[sorted({i for pair in pairs for i in pair})]
    measured = stages.json(
        "losses",
        lambda: {kind: losses(model, own, tasks, sample) for kind, own in (("private", private), ("joint", joint))},
    )
    rows = [_row(library, tasks, measured, *pair, float(s_EE[pair])) for pair in pairs]
    found = _result(rows, config.transfer.bins)
    write_json(folder / "transfer.json", found)
    picture.write(found, folder / "transfer")
    _print(found)


def _trained(model, tasks, groups, folder, train) -> Library:
    """An expert for each group. Each has tasks of its own names, for a task is repeated as often as its group needs."""
    own = {
        group: [
            dataclasses.replace(task, name=f"{task.name} of {group}") for task in levelled([tasks[n] for n in names])
        ]
        for group, names in groups.items()
    }
    renamed = {group: [task.name for task in one] for group, one in own.items()}
    settings = train.to_dict() | {"batch": 2 * train.batch}
    joint = train_library(model, Tasks(itertools.chain(*own.values())), renamed, folder, **settings)
    infos = (dataclasses.replace(info, tasks=tuple(groups[info.name])) for info in joint.infos)
    return dataclasses.replace(joint, infos=tuple(infos))


def _those(options, *keys):
    return {key: options[key] for key in keys if key in options}


def _check_comparable(library: Library, train) -> None:
    """Raises InputError where the private experts are known to have been trained otherwise than the joint ones are."""
    if train.patience:
        raise InputError("config.train.patience: expected 0, for experts that stop early have no matched compute")
    for info in library.infos:
        had = {"rank": info.rank, "alpha": info.alpha} | dict(info.training)
        for key in ("rank", "alpha", "steps", "learning_rate"):
            if key in had and had[key] != train[key]:
                raise InputError(
                    f"expert {info.name!r} was trained with {key} = {had[key]}, config.train.{key} is {train[key]}; "
                    "expected the same, for private and joint experts are compared at matched compute"
                )


def _row(library, tasks, measured, i, j, similarity):
    """What became of one pair."""
    names = [library.names[i], library.names[j]]
    joint = measured["joint"][" + ".join(names)]
    own = {name: list(measured["private"][name].values()) for name in names}
    private = [float(np.mean(own[name])) for name in names]
    together = [float(np.mean([joint[task] for task in measured["private"][name]])) for name in names]
    gains = [before - after for before, after in zip(private, together, strict=True)]
    return {
        "names": names,
        "families": [tasks[library.tasks[e][0]].family for e in (i, j)],
        "similarity": similarity,
        "private": private,
        "joint": together,
        "gains": gains,
        "gain": float(np.mean(gains)),
    }


def _result(rows, bins) -> dict:
    similarities, gains = ([row[key] for row in rows] for key in ("similarity", "gain"))
    return {
        "spearman": _as_json(spearman(similarities, gains)),
        "bins": [one._asdict() | {"gain": _as_json(one.gain)} for one in binned(similarities, gains, bins)],
        "pairs": rows,
    }


def _as_json(estimate) -> dict[str, float | None]:
    return {key: numbers.finite(value) for key, value in estimate._asdict().items()}


def _print(found):
    for one in found["bins"]:
        gain = one["gain"]
        print(
            f"similarity {one['low']:.3f} to {one['high']:.3f}: mean gain {gain['value']:+.3f} nats "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}] over {one['pairs']} pairs"
        )
    rho = found["spearman"]
    low, high = (numbers.ratio(rho[end]) for end in ("low", "high"))
    print(f"Spearman's rank correlation {numbers.ratio(rho['value'])} [{low}, {high}]")
