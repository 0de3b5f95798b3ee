"""The page is one file, well-formed, complete, and safe against any text in tasks and tokens."""

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import modjax.report
from modjax.errors import InputError
from modjax.report.page import render

VOID = {"meta", "link", "br", "input", "img"}
SECTIONS = {
    "methods": "comparison",
    "tasks": "tasks",
    "paired": "paired",
    "curves": "curves",
    "analysis": "analysis",
    "similarity": "similarity",
    "routing": "routing",
    "stages": "cost",
    "config": "settings",
}
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&$\\frac{"


class Page(HTMLParser):
    """Every tag with its attributes, text by tag, and tags that are not closed or closed in the wrong order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.faults, self.text = [], [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data.strip())

    @property
    def sections(self):
        return {attributes["id"] for tag, attributes in self.tags if tag == "section"}


def test_every_tag_is_closed_in_turn(page_text):
    page = Page(page_text)
    assert page.faults == []
    assert page.open == []


def test_page_refers_to_nothing_outside_itself(page_text):
    for tag, attributes in Page(page_text).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            link = attributes.get(name) or "#"
            assert link.startswith(("#", "data:")), f"<{tag} {name}={link!r}>"
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|import\(", page_text)


def test_ids_are_unique_and_references_within_drawings_resolve(page_text):
    ids = [attributes["id"] for _, attributes in Page(page_text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r"url\(#([^)]+)\)", page_text) + re.findall(r'href="#([^"]+)"', page_text)
    assert references
    assert set(references) <= set(ids)


def test_drawings_take_every_colour_from_the_page(page_text):
    assert "#0a01" not in page_text
    used = set(re.findall(r"(?:fill|stroke): var\(--([a-z]+(?:-\d)?)\)", page_text))
    defined = set(re.findall(r"--([a-z]+(?:-\d)?):", page_text))
    assert {"ink", "method-1", "cluster-3"} <= used <= defined


def test_all_sections_are_there_and_the_file_is_small(page_text):
    assert Page(page_text).sections == set(SECTIONS.values())
    assert len(page_text) < 1_000_000


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_without_its_key_is_left_out(results, key):
    del results[key]
    assert Page(render(results)).sections == set(SECTIONS.values()) - {SECTIONS[key]}


def test_no_results_at_all_still_make_a_page():
    page = Page(render({}))
    assert page.sections == set()
    assert page.faults == []


def test_the_same_results_give_the_same_page(results):
    del results["routing"]
    assert render(results) == render(copy.deepcopy(results))


def test_experts_whose_training_failed_are_named(results):
    page = Page(render(results | {"failed": {"private": {"sums": 12}}}))
    assert "sums (of private, at step 12)" in page.text["dd"] and "Failed experts" in page.text["dt"]


def test_results_survive_json_unchanged(results):
    assert render(json.loads(json.dumps(results))) == render(results)


def _spoil(results):
    """Puts the hostile text wherever text of users can occur."""
    results["title"] = results["subtitle"] = HOSTILE
    results["facts"] = {HOSTILE: HOSTILE}
    results["failed"] = {HOSTILE: {HOSTILE: 1}}
    results["config"] = {HOSTILE: {HOSTILE: HOSTILE}}
    results["stages"][0]["name"] = HOSTILE
    results["methods"][0] |= {"name": HOSTILE, "note": HOSTILE}
    results["tasks"][0] |= {"name": HOSTILE, "family": HOSTILE}
    results["tasks"][0]["loss"][HOSTILE] = 1.0
    curve = results["curves"][0]
    curve["name"] = HOSTILE
    curve["loss"][HOSTILE] = curve["loss"]["add_two_numbers"]
    results["similarity"]["experts"][0] = results["similarity"]["families"][0] = HOSTILE
    results["paired"][0]["names"][0] = HOSTILE
    results["analysis"][0] |= {"name": HOSTILE}
    results["analysis"][0]["experts"][0] = results["analysis"][0]["sites"][0] = HOSTILE
    sentence = results["routing"][0]
    sentence |= {"library": HOSTILE, "text": HOSTILE, "expected": HOSTILE}
    sentence["tokens"][0] = sentence["experts"][0] = HOSTILE


def test_hostile_names_and_tokens_stay_text(results):
    scripts = [tag for tag, _ in Page(render(results)).tags].count("script")
    _spoil(results)
    text = render(results)
    page = Page(text)
    assert page.faults == []
    assert [tag for tag, _ in page.tags].count("script") == scripts
    assert "img" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in page.text["title"]
    assert HOSTILE in page.text["h1"]
    data = json.loads(re.search(r'id="routing-data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["sentences"][0]["tokens"][0] == HOSTILE


def test_names_in_any_script_and_with_line_breaks_are_drawn(results):
    results["methods"][0]["name"] = "基线\nmodel_$x$ 🙂"
    assert "基线 model_$x$ 🙂" in render(results)


def test_best_values_are_bold_and_missing_ones_are_dashes(results):
    page = Page(render({"methods": results["methods"]}))
    assert {"1.150", "1.980", "52.8"} <= set(page.text["b"])
    assert "–" in page.text["td"]
    assert not {"nan", "NaN", "None"} & set(page.text["td"])


def test_scores_and_curves_that_are_not_finite_are_drawn_without(results):
    for curve in results["curves"]:
        expert = next(iter(curve["loss"]))
        curve["loss"][expert] = [float("nan")] * len(curve["steps"])
        curve["validation"]["loss"][expert] = [None] * len(curve["validation"]["steps"])
    results["similarity"]["similarity"][0][1] = None
    results["similarity"]["adjusted_rand"] = float("nan")
    results["routing"][0]["weights"][0][0][0] = float("nan")
    for task in results["tasks"]:
        task["loss"] = dict.fromkeys(task["loss"])
    results["stages"][1]["seconds"] = None
    text = render(results)
    assert Page(text).faults == []
    assert not re.search(r"\bnan\b", text.partition("<script>")[0], re.IGNORECASE)


def test_a_leaderboard_shows_intervals_costs_and_failures(compared):
    text = render(compared)
    page = Page(text)
    assert page.faults == []
    assert page.sections == set(SECTIONS.values())
    assert [tag for tag, attributes in page.tags if attributes.get("class") == "comparison"] == ["table"] * 2
    low, high = compared["methods"][0]["in_distribution"]["intervals"]["loss"]
    assert f"{low:.3f}–{high:.3f}" in page.text["small"]
    assert "PhatGoose" in page.text["strong"] and "PhatGoose" not in page.text["button"]
    assert "Temporary" in page.text["th"] and "Peak" not in text
    compared["methods"][0]["bytes"]["peak"] = 2**30
    text = render(compared)
    assert "Peak" in Page(text).text["th"] and "Peak:" in text


def test_a_comparison_of_failures_alone(compared):
    page = Page(render({"methods": compared["methods"][-1:]}))
    assert page.faults == [] and "PhatGoose" in page.text["strong"]


def test_routing_weights_travel_in_thousandths(results):
    text = render({"routing": results["routing"][-1:]})
    data = json.loads(re.search(r'id="routing-data">(.*?)</script>', text, re.DOTALL)[1])
    sentence, source = data["sentences"][0], results["routing"][-1]
    assert sentence["layers"] == 30
    tokens, experts = len(source["tokens"]), len(source["experts"])
    layer, token, expert = 4, 2, 1
    flat = sentence["weights"][(layer * tokens + token) * experts + expert]
    assert flat == round(1000 * source["weights"][layer][token][expert])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r["similarity"]["labels"].pop(), r"similarity\.labels has 13 entries; expected 14"),
        (lambda r: r["similarity"]["similarity"][2].pop(), r"row of 'count_items' has 13 entries; expected 14"),
        (lambda r: r["routing"][0]["tokens"].pop(), r"routing\.weights must hold, .* 18 tokens of 14"),
        (lambda r: r["curves"][0]["steps"].pop(), "400 values; expected one for each of its 399 steps"),
        (lambda r: r["paired"][0]["below"].pop(), r"paired\.below must be 7 x 7"),
        (lambda r: r["analysis"][0]["use"][3].pop(), r"analysis\.use of 'Arrow \(MBC\)' must hold 30 x 4 x 4"),
        (lambda r: r["analysis"][0]["sites"].pop(), r"analysis\.use .* must hold 30 x 3 x 4 numbers"),
        (lambda r: r["stages"][0].update(seconds="long"), "'long' in place of a number"),
    ],
)
def test_results_that_contradict_themselves_are_named(results, spoil, message):
    spoil(results)
    with pytest.raises(InputError, match=message):
        render(results)


def test_write_gives_the_file_and_replaces_it_whole(tmp_path, results):
    short = {"title": "First"}
    path = modjax.report.write(short, tmp_path / "deep" / "report")
    assert path == tmp_path / "deep" / "report" / "index.html"
    assert modjax.report.write(short | {"title": "Second"}, path) == path
    assert "Second" in path.read_text(encoding="utf-8")
    results["stages"][0]["seconds"] = "long"
    with pytest.raises(InputError):
        modjax.report.write(results, path)
    assert "Second" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["index.html"]


def test_importing_the_report_loads_neither_matplotlib_nor_jinja2():
    check = "import sys, modjax.report; sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
