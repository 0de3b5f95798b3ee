"""`modjax report`: the HTML page of a finished demo, written anew from its results."""

import pathlib

from modjax import report
from modjax.files import read_json_object


def run(config, workdir, flags) -> None:
    """Reads WORKDIR/results.json; prints the table and writes the page."""
    found = read_json_object(pathlib.Path(workdir) / "results.json")
    print(report.text_table(found))
    print(f"report: {report.write(found, flags.report)}")
