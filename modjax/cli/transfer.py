"""`modjax transfer`: whether the similarity of two tasks' experts predicts that training them together helps."""

from modjax.cli import build, session
from modjax.eval.sample import Sample
from modjax.report import numbers
from modjax.studies.libraries import picked
from modjax.studies.transfer import transfer

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = (
    "modjax transfer --config=configs/transfer.py:quick,library=workdir/private/library --workdir=workdir/transfer"
)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/joint/library, an expert per pair, transfer.json, transfer.svg and transfer.png."""
    folder = session.enter(workdir, config)
    found = transfer(
        build.model(config),
        build.tasks(config),
        build.library(config),
        folder,
        config.train.to_dict(),
        Sample.of(config.evaluate),
        **config.transfer,
        **picked(config.cluster, "sparsity", "components"),
    )
    for one in found["bins"]:
        gain = one["gain"]
        print(
            f"similarity {one['low']:.3f} to {one['high']:.3f}: mean gain {gain['value']:+.3f} nats per target token "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}] over {one['pairs']} pairs"
        )
    rho = found["spearman"]
    low, high = (numbers.ratio(rho[end]) for end in ("low", "high"))
    print(f"Spearman's rank correlation {numbers.ratio(rho['value'])} [{low}, {high}]")
