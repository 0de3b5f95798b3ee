"""`modjax merge`: the experts of a library merged into one, or general knowledge subtracted from each."""

from modjax.cli import build, session
from modjax.errors import InputError
from modjax.parallel.distributed import from_first
from modjax.studies import methods

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax merge --config=configs/merge.py:library=workdir/private/library --workdir=workdir/merged"
PARTS = ("library", "subtract", "merge", "note")  # of a method that change its library without training


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library: one expert, which needs no router, or after subtraction alone as many as before."""
    method = {part: value for part, value in build.method(config).items() if part in PARTS}
    if not {"subtract", "merge"} & set(method):
        raise InputError("config.method: neither 'subtract' nor 'merge' is given; expected at least one")
    experiment = build.experiment(config)
    methods.check(method, experiment, "config.method")
    folder = session.enter(workdir, config)
    path = folder / "library"
    session.bind(folder, methods.made_of(method, experiment), path.name)
    if from_first(path.exists):
        print(f"{path} is complete; nothing to do")
        return
    library = methods.library_of(method, experiment)
    from_first(lambda: library.save(path))
    print(f"{path}: {library}")
