"""`modjax report`: writes the HTML page of a finished demo or leaderboard again from its results."""

import pathlib

from absl.flags import DEFINE_string, FlagValues

from modjax import report
from modjax.cli import session
from modjax.errors import InputError
from modjax.files import read_json_object

NEEDS = ("workdir",)  # flags that must be given
EXAMPLE = "modjax report --workdir=workdir/demo"
RESULTS = ("results.json", "leaderboard.json")


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


@session.first_alone
def run(config, workdir, flags) -> None:
    """Reads WORKDIR/results.json or WORKDIR/leaderboard.json; prints the table and writes the page."""
    paths = [pathlib.Path(workdir) / name for name in RESULTS]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise InputError(f"{workdir}: has neither {' nor '.join(RESULTS)}; expected a finished demo or leaderboard")
    found = read_json_object(path)
    print(report.text_table(found))
    print(f"report: {report.write(found, flags.report)}")
