"""FLAN v2 as the paper prepared it, on tables in its form; no task of an evaluation benchmark is among the tasks."""

import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from modjax import data
from modjax.data.sources import flan
from modjax.errors import InputError

# The names that FLAN v2 has for the benchmarks' tasks.
HELD_OUT = (
    "ai2_arc/ARC-Challenge:1.0.0", "ai2_arc/ARC-Easy:1.0.0", "bool_q:1.0.0", "cot_qasc_ii", "hellaswag:1.1.0",
    "openbookqa:0.1.0", "piqa:1.0.0", "winogrande:1.1.0",
)  # fmt: skip
# Names that are near those, of tasks to train on.
KEPT = (
    "cot_qasc", "qasc_is_correct_1", "social_i_qa_Generate_answer", "wiqa_effect_with_label_answer", "para_crawl_enes",
    "wiki_qa_Decide_good_answer", "super_glue/wsc.fixed:1.0.2", "cosmos_qa:1.0.0", "natural_questions_open:1.0.0",
    "gem/web_nlg_en:1.1.0", "squad/v2.0:3.0.0", "sciq_Multiple_Choice", "search_c", "stream_qed", "cot_creak_ii",
)  # fmt: skip
OTHERS = (
    "HellaSwag", "Hella Swag", "hella-swag_validation", "PIQA", "PiQA 1.0", "physical_iqa", "task080_piqa_answer",
    "ARC-c", "ARC_E", "arc challenge", "AI2 Arc", "BoolQ", "super_glue/boolq:1.0.2", "OpenBookQA", "open-book-qa",
    "OBQA", "Wino-Grande", "winogrande_xl", "CoT-QASC (II)", "\uff30\uff29\uff31\uff21",
)  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """Rows of all names, in turn and in the columns of chiayewken/flan-v2; a few sources and templates."""
    import pyarrow

    names = [(name, "Flan2021") for name in (*HELD_OUT, *OTHERS, *KEPT)]
    names += [("task080_sums", "NIv2"), ("wiki_dialog", "Dialog"), ("cot_gsm8k", "CoT"), ("quail_no_prompt_id", "P3")]
    rows = [
        {"source": f"{name} {i}", "target": str(i), "task_name": name, "task_source": of, "template_type": "zs_opt",
         "template_idx": i % 3}
        for i in range(12)
        for name, of in random.Random(i).sample(names, len(names))
    ]  # fmt: skip
    return pyarrow.Table.from_pylist(rows)


@pytest.fixture
def file(table, offline, tmp_path):
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    return str(tmp_path / "train.parquet")


def test_no_task_of_a_benchmark_is_among_the_tasks(file):
    tasks = data.load({"form": "flan", "files": file})
    cleaned = {name.replace("/", "_").replace(":", "_").replace("-", "_").replace(".", "_") for name in KEPT}
    assert set(tasks) == cleaned | {"cot_gsm8k", "quail_no_prompt_id"}
    for task in tasks.values():
        assert not any(flan.is_evaluated(example.source) for example in task)


@pytest.mark.parametrize("name", [*HELD_OUT, *OTHERS])
def test_a_benchmark_is_known_by_any_of_its_names(name):
    assert flan.is_evaluated(name) and flan.training_name(name) is None
    assert flan.is_evaluated(name.replace("/", "_").replace(":", "_").replace("-", "_").replace(".", "_"))


@settings(deadline=None, derandomize=True, database=None)
@given(strategies.sampled_from(HELD_OUT), strategies.randoms(use_true_random=False))
def test_a_benchmark_is_known_in_any_spelling(name, random):
    def spelled(letter):
        between = random.choice(["", "", "", "-", "_", " ", "/", ".", ":", "\u2013"])
        return (letter.upper() if random.random() < 0.5 else letter) + between

    assert flan.is_evaluated("".join(map(spelled, name)))
    assert flan.is_evaluated(
        random.choice(["", "flan_", "2022/"]) + name + random.choice(["", "_10templates", "/train"])
    )


@pytest.mark.parametrize("name", KEPT)
def test_other_tasks_stay(name):
    assert flan.training_name(name) is not None


def test_names_are_cleaned():
    assert flan.training_name("math_dataset/algebra__linear_1d:1.0.0") == "math_dataset_algebra__linear_1d_1_0_0"
    assert flan.training_name("squad/v2.0:3.0.0") == "squad_v2_0_3_0_0"


def test_the_draw_and_the_splits_are_those_of_the_original_preparation(file):
    """Written out with `datasets`: filter by name, shuffle(42), the first ones, a split by place."""
    import datasets

    tasks = data.load({"form": "flan", "files": file, "most": 9})
    whole = datasets.load_dataset("parquet", data_files=file)["train"]
    for name, original in (("cot_qasc", "cot_qasc"), ("gem_web_nlg_en_1_1_0", "gem/web_nlg_en:1.1.0")):
        own = whole.filter(lambda row, original=original: row["task_name"] == original).shuffle(42).select(range(9))
        u = [np.random.RandomState(i).uniform() for i in range(9)]
        splits = ["train" if one < 0.8 else "validation" if one < 0.9 else "test" for one in u]
        expected = list(zip(own["source"], own["target"], splits, strict=True))
        assert [(one.source, one.target, one.split) for one in tasks[name]] == expected


def test_templates_may_be_chosen(file, table):
    tasks = data.load({"form": "flan", "files": file, "where": {"template_idx": [1]}})
    assert {len(task) for task in tasks.values()} == {4} and "wiki_dialog" not in tasks
    assert set(tasks) == set(data.load({"form": "flan", "files": file}))


def test_ten_thousand_examples_of_a_task_are_drawn_by_default(offline, tmp_path):
    import pyarrow
    import pyarrow.parquet

    n = 10_050
    made = {
        "source": ["x"] * n,
        "target": list(map(str, range(n))),
        "task_name": ["big"] * n,
        "task_source": ["P3"] * n,
    }
    pyarrow.parquet.write_table(pyarrow.table(made), tmp_path / "t.parquet")
    task = data.load({"form": "flan", "files": str(tmp_path / "t.parquet")})["big"]
    assert task.sizes == {"train": 7984, "validation": 1019, "test": 997}
    order = np.random.default_rng(42).permutation(n)[:10_000]
    assert [int(task[i].target) for i in (0, 1, 5000, 9999)] == order[[0, 1, 5000, 9999]].tolist()


def test_flan_by_name_is_the_data_set_of_the_hub(offline):
    with pytest.raises(InputError, match="chiayewken/flan-v2: cannot be loaded .*; expected a path, or a data set"):
        data.load("flan")
