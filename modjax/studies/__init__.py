"""Studies: what takes many steps and leaves a folder. Python functions of models, tasks, libraries and a folder.

A *method* is a dictionary, as in `modjax.studies.methods`; an `Experiment` holds what methods are made of.
"""

from modjax.studies.benchmarks import benchmarks
from modjax.studies.demo import demo
from modjax.studies.design import Study
from modjax.studies.experiment import Experiment
from modjax.studies.leaderboard import leaderboard
from modjax.studies.libraries import Libraries
from modjax.studies.plan import plan
from modjax.studies.search import search
from modjax.studies.seeds import seeds
from modjax.studies.study import study
from modjax.studies.transfer import transfer

__all__ = [
    "Experiment",
    "Libraries",
    "Study",
    "benchmarks",
    "demo",
    "leaderboard",
    "plan",
    "search",
    "seeds",
    "study",
    "transfer",
]
