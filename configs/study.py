"""The study of arXiv 2405.11157: libraries at equal compute, tuned methods, three seeds, and the paper's claims.

    modjax study --config=configs/study.py:demo --workdir=workdir/study
    modjax study --config=configs/study.py:sni,tasks=DIR --workdir=workdir/study

Reproduces sections 4 and 5 of the paper at the scale of the variant. Expect: docs/experiments.md.

demo   The tasks of the demo; of each family of tasks one is for choices alone.
sni    Super-NaturalInstructions in a task folder with the groups core64 (trained on), heldout12, and extra192, of which
       twelve tasks are for choices, as is half of core64: 5 rows of 512 tokens per task.
long   32 tasks of core64, those that `sni` reports, with 20 rows per task, and one seed; settings are those that `sni`
       chose.
sni256 All 256 tasks of core64 and extra192, 48 rows per task, for a GPU; settings are those that `sni` chose. Not run
       to its end.
paper  FLAN v2 as in the paper, with `phi2` or `mistral` after it: five epochs, one seed, ten benchmarks from the hub;
       no adaptation, because no task is held out. docs/plan.md has what 1,000 steps of such experts need. Not run here.

Every library reads as many rows as the private one. MBC first trains private experts for 2/5 of the steps, clusters
them, and trains an expert per cluster for the rest. Where a method has several lines, the one with the lowest loss on
the validation split of the development tasks is taken. A job that was stopped goes on with the same command; seeds,
methods and benchmarks may be added.
"""

from common import adaptation, base, demo, flan, with_variants
from ml_collections import ConfigDict

from modjax.eval import BENCHMARKS

OF_DEMO = ("dates_next_day", "words_past", "records_person", "numbers_larger", "editing_capitals")
OF_FLAN = ("wiki_qa_*", "quail_*", "dream_*")
ARROWS = [{"name": "arrow", "top_k": k, "temperature": t} for k, t in ((1, 1.0), (4, 1.0), (-1, 1.0), (-1, 0.3))]
UNIFORMS = [{"name": "uniform", "mix": mix} for mix in ("parameters", "outputs")]
# Of extra192: a task of each of twelve categories that neither the other tasks in training nor the reported ones have.
NEW = (
    "task566_circa_classification", "task1517_limit_classfication",
    "task066_timetravel_binary_consistency_classification",
    "task1283_hrngo_quality_classification", "task1381_quarel_incorrect_option_generation",
    "task1599_smcalflow_classification", "task589_amazonfood_summary_text_generation",
    "task223_quartz_explanation_generation", "task550_discofuse_sentence_generation",
    "task1704_ljspeech_textmodification", "task547_alt_translation_entk_en",
    "task966_ruletaker_fact_checking_based_on_given_context",
)  # fmt: skip
# Of core64: two of the four tasks of each cluster of the folder.
TRAINED = (
    "task064_*", "task205_*", "task376_*", "task160_*", "task113_*", "task157_*", "task085_*", "task087_*",
    "task493_*", "task586_*", "task115_*", "task274_*", "task1196_*", "task1199_*", "task582_*", "task898_*",
    "task083_*", "task178_*", "task023_*", "task167_*", "task126_*", "task127_*", "task428_*", "task429_*",
    "task583_*", "task584_*", "task111_*", "task275_*", "task1418_*", "task472_*", "task565_*", "task1603_*",
)  # fmt: skip
# The other two.
REPORTED = (
    "task497_*", "task636_*", "task365_*", "task377_*", "task161_*", "task243_*", "task835_*", "task1445_*",
    "task929_*", "task889_*", "task629_*", "task900_*", "task1204_*", "task291_*", "task1293_*", "task344_*",
    "task1727_*", "task024_*", "task568_*", "task821_*", "task107_*", "task210_*", "task430_*", "task515_*",
    "task346_*", "task610_*", "task413_*", "task927_*", "task1359_*", "task1217_*", "task353_*", "task357_*",
)  # fmt: skip
KINDS = {"private": "private", "MBC": "mbc", "random": "random", "embedding": "embedding"}


def routed(library, routers, **more):
    """A line per router, among which is chosen."""
    return [{"library": library, "router": router, **more} for router in routers]


def compared(uniforms=UNIFORMS, arrows=ARROWS):
    """The methods that are compared without adaptation."""
    mean = {"note": "mean of all experts"}
    return {
        "base": {"library": "", "note": "the frozen model alone"},
        "shared": {"library": "shared", "note": "one expert on all tasks"},
        **{f"mu ({name})": routed(KINDS[name], uniforms, **mean) for name in ("private", "MBC")},
        **{f"Arrow ({name})": routed(kind, arrows) for name, kind in KINDS.items()},
        "confident (private)": {"library": "private", "router": {"name": "confident"}, "note": "else the mean of all"},
        "confident (MBC)": {
            "library": "mbc_brief",
            "router": {"name": "confident", "otherwise": "mean"},
            "note": "brief and cluster experts, else the mean of the latter",
        },
        **{
            f"confident, else {name}": {
                "library": f"private_{expert}",
                "router": {"name": "confident", "otherwise": expert},
                "note": "more compute",
            }
            for name, expert in {"shared": "shared", "MBC's mean": "mean", "general": "general"}.items()
        },
        **{f"oracle ({name})": {"library": kind, "router": {"name": "oracle"}} for name, kind in KINDS.items()},
    }


METHODS = compared()
ADAPTATIONS = {
    "adapt LoRA": {"library": "", "adapt": {"method": "lora"}, "note": "from scratch"},
    "adapt shared": {"library": "shared", "adapt": {"method": "shared"}, "note": "from the shared expert"},
    "adapt MBC": {"library": "mbc", "adapt": {"method": "mu"}, "note": "from the mean of the cluster experts"},
}


def get_config(variants: str | None = None):
    config, few = base(), base()
    adaptation(few)
    config.adapt = few.adapt
    shots = (10, 50, 100)
    lines = METHODS | {
        f"{name} {n}": line | {"adapt": line["adapt"] | {"examples": n}}
        for name, line in ADAPTATIONS.items()
        for n in shots
    }
    config.study = {
        "seeds": (0, 1, 2),
        "methods": ConfigDict(lines, allow_dotted_keys=True),
        "held_out": (),  # tasks that are kept out of training in addition to those that the collection keeps out
        "development": (),  # tasks, as `only` names them, by which settings are chosen and which are not reported
        "tuning": 8,  # examples of each of them
        "clustering": 0.4,  # share of MBC's compute that trains the experts it clusters
        "rows": {"mbc": 4, "random": 4, "embedding": 4, "shared": 8},  # per step and expert
        # Where the training of adaptation differs from `train`.
        "adapted": {"steps": 10, "batch": 1, "evaluate_every": 5},
        "pairs": 24,  # of the transfer study
        "benchmarks": {  # see configs/benchmarks.py
            "names": (),  # of the ten; (): none
            "data": "",  # the folder of their records; "": the hub
            "examples": 100,  # of each
            "execute": False,  # allow programs that the model writes
        },
    }
    return with_variants(config, variants, demo=of_demo, sni=sni, long=long, sni256=sni256, paper=paper)


def paper(config):
    flan(config)
    config.train.update(epochs=5.0, evaluate_every=0, save_every=500)
    config.evaluate.examples = 20
    config.study.update(seeds=(0,), development=OF_FLAN, rows=dict.fromkeys(config.study.rows, 16), pairs=0)
    config.study.methods = ConfigDict(METHODS, allow_dotted_keys=True)
    config.study.benchmarks.update(names=tuple(BENCHMARKS), examples=0, execute=True)


def of_demo(config):
    demo(config)
    config.cluster.clusters = 5
    config.study.development = OF_DEMO


def sni(config):
    config.only = ("core64", "heldout12", *NEW)
    config.train.update(
        steps=5, batch=1, length=512, learning_rate=3e-3, dropout=0.0, system="", too_long="truncate", save_every=1
    )
    config.evaluate.update(examples=4, max_new_tokens=24, length=512, system="", too_long="truncate")
    config.cluster.clusters = 8
    config.study.update(held_out=NEW, tuning=2)
    config.study.rows.update(mbc=2, random=2, embedding=2)
    config.study.adapted.update(steps=5, evaluate_every=0)
    config.study.development = TRAINED + NEW


def long(config):
    sni(config)
    config.only = (*REPORTED, "heldout12")
    config.train.steps = 20
    config.study.development = ()
    settled(config)
    for name in ("Arrow (embedding)", "oracle (embedding)"):
        del config.study.methods[name]


def sni256(config):
    sni(config)
    config.only = ("core64", "extra192", "heldout12")
    config.train.update(steps=48, save_every=0)
    config.cluster.clusters = 10
    config.study.rows.update(mbc=4, random=4, embedding=4, shared=16)
    settled(config)


def settled(config):
    """One seed, without adaptation, and with the settings that the three seeds of `sni` chose most often."""
    config.study.update(seeds=(0,), held_out=(), pairs=0)
    config.study.methods = ConfigDict(compared(UNIFORMS[1:], ARROWS[3:]), allow_dotted_keys=True)
