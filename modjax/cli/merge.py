"""`modjax merge`: the experts of a library merged into one, or general knowledge subtracted from each."""

from modjax.cli import build, session
from modjax.errors import InputError
from modjax.studies import methods

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax merge --config=configs/merge.py:library=workdir/private/library --workdir=workdir/merged"
PARTS = ("library", "subtract", "merge", "note")  # of a method that change its library without training


@session.first_alone
def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library: one expert, which needs no router, or after subtraction alone as many as before."""
    method = {part: value for part, value in build.method(config).items() if part in PARTS}
    if not {"subtract", "merge"} & set(method):
        raise InputError("config.method: neither 'subtract' nor 'merge' is given; expected at least one")
    experiment = build.experiment(config)
    methods.check(method, experiment, "config.method")
    path = session.enter(workdir, config) / "library"
    if path.exists():
        print(f"{path} is complete; nothing to do")
        return
    library = methods.library_of(method, experiment)
    library.save(path)
    print(f"{path}: {library}")
