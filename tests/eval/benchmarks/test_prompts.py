"""What each benchmark asks, as text, from every form of its records; all forms give the same question."""

import json

import pytest

from modjax.eval.benchmarks.bbh import BBH, SHOTS, normalised, right
from modjax.eval.benchmarks.benchmark import Choices, Problem
from modjax.eval.benchmarks.catalogue import BENCHMARKS
from modjax.eval.benchmarks.hellaswag import cleaned

SKY = Choices(("Question: Which color has a clear sky?\nAnswer:",) * 3, ("red", "blue", "green"), 1)
WATER = Choices(("Water is wet.\nQuestion: is water wet?\nAnswer:",) * 2, ("no", "yes"), 1)
BOAT = Choices(("Sailing: A boat leaves the port. The crew",) * 2, ("sets the sails.", "eats the sails."), 0)
ICE = Choices(("Ice melts when it is",) * 2, ("warmed", "weighed"), 0)
NAIL = Choices(("Question: drive a nail\nAnswer:",) * 2, ("Use a hammer.", "Use a feather."), 0)
CUP = Choices(("The ball did not fit the cup because the ball", "The ball did not fit the cup because the cup"),
              ("was large.",) * 2, 0)  # fmt: skip
LETTERED = {"text": ["red", "blue", "green"], "label": ["A", "B", "C"]}

CASES = {
    "arc_challenge": (SKY, [
        {"id": "x", "question": "Which color has a clear sky?", "choices": LETTERED, "answerKey": "B"},
        {"question": "Which color has a clear sky?", "choices": LETTERED | {"label": list("123")}, "answerKey": "2"},
        {"query": "Question: Which color has a clear sky?", "choices": ["red", "blue", "green"], "gold": 1},
    ]),
    "arc_easy": (SKY, [{"query": "Which color has a clear sky?", "choices": ["red", "blue", "green"], "gold": 1}]),
    "boolq": (WATER, [
        {"question": "is water wet", "answer": True, "passage": "Water is wet."},
        {"question": "is water wet", "label": 1, "passage": "Water is wet.", "idx": 0},
        {"query": "Passage: Water is wet.\nQuestion: is water wet?", "choices": ["no", "yes"], "gold": 1},
    ]),
    "hellaswag": (BOAT, [
        {"activity_label": "Sailing", "ctx_a": "A boat  leaves [header] the port.", "ctx_b": "the crew", "ctx": "x",
         "endings": ["sets the sails.", "eats [substeps] the sails."], "label": "0"},
        {"ctx": "Sailing: A boat leaves the port. the crew", "label": 0,
         "endings": ["sets the sails.", "eats the sails."]},
    ]),
    "openbookqa": (ICE, [
        {"id": "x", "question_stem": "Ice melts when it is", "answerKey": "A ",
         "choices": {"text": ["warmed", "weighed"], "label": ["A", "B"]}},
        {"query": "Ice melts when it is", "choices": ["warmed", "weighed"], "gold": 0},
    ]),
    "piqa": (NAIL, [{"goal": "drive a nail", "sol1": "Use a hammer.", "sol2": "Use a feather.", "label": 0}]),
    "winogrande": (CUP, [
        {"sentence": "The ball did not fit the cup because _ was large.", "option1": "the ball", "option2": "the cup",
         "answer": "1"},
        {"context_options": list(CUP.contexts), "continuation": "was large.", "gold": 0},
    ]),
}  # fmt: skip
FORMS = [(name, number) for name, (_, records) in CASES.items() for number in range(len(records))]


def _questions(name, records, folder):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return BENCHMARKS[name].questions(folder / f"{name}.jsonl")


@pytest.mark.parametrize(("name", "number"), FORMS)
def test_choices(name, number, tmp_path):
    expected, records = CASES[name]
    assert _questions(name, [records[number]], tmp_path) == [expected]


def test_hellaswag_is_cleaned_as_the_harness_does():
    from lm_eval.tasks.hellaswag.utils import preprocess

    for text in ("How to [title] sail [step] a  boat", "  a   b [x] c ", "[header] Go. [title] Row", "no marks"):
        assert cleaned(text) == preprocess(text)


def _tasks(folder, n=SHOTS + 2):
    for task in ("signs", "words"):
        rows = [{"input": f"{task} {i}", "target": f"{i}"} for i in range(n)]
        (folder / f"{task}.json").write_text(json.dumps({"canary": "x", "examples": rows}))
    return BBH.questions(folder)


def test_bbh_has_the_first_five_examples_of_the_task_in_its_prompt_and_does_not_score_them(tmp_path):
    found = _tasks(tmp_path)
    shots = "".join(f"Solve the following problem: words {i}\nAnswer: {i}\n\n" for i in range(5))
    assert found[2:] == [
        Problem(f"{shots}Solve the following problem: words {i}\nAnswer:", f"{i}", "words") for i in (5, 6)
    ]
    assert [one.group for one in found] == ["signs"] * 2 + ["words"] * 2
    assert BBH.answering.stop == ("\n\n",)


def test_bbh_compares_as_the_reference_code_but_for_brackets():
    for answer in (" (A)", "a", "(A).", "A"):
        assert right(answer, Problem("", "(A)"))
    assert not right("(A) because", Problem("", "(A)")) and not right("", Problem("", "(A)"))
    assert (
        right(" ] ) \n", Problem("", "] )"))
        and not right("", Problem("", "] )"))
        and not right("} )", Problem("", "] )"))
    )
    assert normalised(" The  Answer,\tis: NO! ") == "the answer is no"


def test_a_sample_is_chosen_by_seed_and_task_alone(tmp_path):
    found = _tasks(tmp_path, n=30)
    few = BBH.sample(found, 3, seed=1)
    assert [one.group for one in few] == ["signs"] * 3 + ["words"] * 3
    assert few == [one for one in found if one in few] == BBH.sample(found, 3, seed=1) != BBH.sample(found, 3, seed=2)
    assert BBH.sample([one for one in found if one.group == "words"], 3, seed=1) == few[3:]
    assert BBH.sample(found, 0, seed=1) == BBH.sample(found, 100, seed=1) == found


ADD = {
    "task_id": "HumanEval/0",
    "prompt": "def add(a, b):\n    '''Sum.'''\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}


def test_humaneval(tmp_path):
    (found,) = _questions("humaneval", [ADD], tmp_path)
    assert found.prompt == found.start == "def add(a, b):\n    '''Sum.'''"
    assert found.target == "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n"
    assert BENCHMARKS["humaneval"].answering.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def test_mbpp_takes_the_first_line_of_the_solution_and_the_split_test(tmp_path):
    one = {"text": "Add two numbers.", "code": "import math\r\ndef add(a, b):\r\n  return a + b", "task_id": 11,
           "test_setup_code": "x = 1", "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
           "challenge_test_list": []}  # fmt: skip
    others = [one | {"task_id": number} for number in (1, 10, 511, 974)]
    sanitized = {"prompt": one["text"], "code": one["code"].replace("\r", ""), "task_id": 510,
                 "test_imports": ["x = 1"], "test_list": one["test_list"]}  # fmt: skip
    prompt = (
        'import math\ndef add(a, b):\n\t"""\n\tAdd two numbers.\n'
        '\tassert add(1, 2) == 3\n\tassert add(0, 0) == 0\n\t"""'
    )
    expected = Problem(prompt, "x = 1\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n", start=prompt)
    assert _questions("mbpp", [one, *others], tmp_path) == [expected]
    assert _questions("mbpp", [sanitized], tmp_path) == [expected]


def test_the_ten_of_the_paper():
    assert set(BENCHMARKS) == {*CASES, "bbh", "humaneval", "mbpp"}
    assert all(one.name == name and one.version == 1 for name, one in BENCHMARKS.items())
    assert [name for name, one in BENCHMARKS.items() if one.runs_code] == ["humaneval", "mbpp"]
