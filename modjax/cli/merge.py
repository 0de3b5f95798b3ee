"""`modjax merge`: a library's experts as one, or less what general experts know."""

from modjax.cli import build, session
from modjax.cli.arguments import parsed
from modjax.experts.library import Library
from modjax.studies import catalogue

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax merge --config=configs/merge.py:library=workdir/private/library --workdir=workdir/merged"


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library: a library of one, which needs no router; of "genknowsub" as many experts as before."""
    name = config.merge.name
    catalogue.check_transform(name, catalogue.TRANSFORMS, "config.merge.name")
    options = parsed(config.merge.options, "config.merge.options")
    path = session.enter(workdir, config) / "library"
    if path.exists():
        print(f"{path} is complete; nothing to do")
        return
    general = Library.load(config.merge.general) if config.merge.general else None
    merged = catalogue.transformed(name, build.library(config), options, general)
    merged.save(path)
    print(f"{path}: {merged}")
