import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from reports._results import Results
from reports.page.provenance import cell_counts, environments, versions
from reports.write import write_report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
COMMAND = "espalier report runs/quickstart"


class Elements(HTMLParser):
    """Collects elements, the text of scripts, and all other text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.words, self.open_script = [], [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.open_script = [dict(attributes), ""]

    def handle_data(self, text):
        if self.open_script is not None:
            self.open_script[1] += text
        else:
            self.words.append(text)

    def handle_endtag(self, tag):
        if tag == "script" and self.open_script is not None:
            self.scripts.append(tuple(self.open_script))
            self.open_script = None

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written_pages():
    """Reports by what they hold: many tests read the same page."""
    return {}


@pytest.fixture
def page_of(results_file, tmp_path, written_pages):
    def write(**changes):
        if repr(changes) not in written_pages:
            written_pages[repr(changes)] = write_report(results_file(**changes), tmp_path / "report", command=COMMAND)
        page = Elements(written_pages[repr(changes)].read_text(encoding="utf-8"))
        page.folder = written_pages[repr(changes)].parent
        return page

    return write


def test_the_header_says_what_ran_and_how(page_of):
    page = page_of()
    text = page.text()
    for words in (
        "quickstart",
        "espalier run quickstart --workers 4",
        "93 networks",
        "150 prune cells",
        "torch 2.13.0",
    ):
        assert words in text
    assert COMMAND in text
    assert '"sparsities": [ 0.8, 0.9, 0.95, 0.98, 0.99 ]' in text


def test_the_page_refers_to_nothing_outside_its_folder(page_of):
    page = page_of()
    references = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("href", "src")
    ]
    files = {reference for reference in references if not reference.startswith(("#", "data:,"))}
    assert len(files) == 6 * 3 + 4 * 3
    for file in files:
        assert (page.folder / file).is_file(), file
    for reference in references:
        assert not re.match(r"[a-z]+://|//", reference)
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {reference[1:] for reference in references if reference.startswith("#")} <= anchors


def test_only_the_scripts_whose_digest_the_policy_names_may_run(page_of):
    page = page_of()
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    running = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running}
    assert len(running) == 2
    assert digests == set(re.findall(r"'sha256-([^']+)'", policy))


def test_ids_are_unique(page_of):
    ids = [
        attributes["id"]
        for _, attributes in page_of(tasks=("one", "two"), methods=("lomp",), seeds=(0,)).elements
        if "id" in attributes
    ]
    assert len(ids) == len(set(ids))


def test_every_number_names_its_cells(page_of, results_file):
    page = page_of()
    cells = set(Results.read(results_file()).cells)
    titles = [attributes["title"] for attributes in page.named("td") if "title" in attributes]
    assert len(titles) > 100
    assert {name for title in titles for name in title.split()} <= cells


def test_every_heading_of_a_table_can_be_sorted_with_the_keyboard(page_of):
    page = page_of()
    headings = page.named("th")
    assert headings
    assert all(heading["aria-sort"] == "none" for heading in headings)
    assert len(page.named("button")) == len(headings)


def test_every_figure_is_embedded_as_valid_json(page_of):
    page = page_of()
    embedded = [json.loads(text) for attributes, text in page.scripts if attributes.get("type") == "application/json"]
    assert len(embedded) == 6
    assert all(specification["datasets"] for specification in embedded)


@pytest.mark.parametrize("place", ["task", "label", "name", "command", "method"])
def test_a_hostile_name_is_shown_and_does_nothing(page_of, place):
    changes = {
        "task": {"tasks": (HOSTILE,)},
        "label": {"labels": {"lomp": HOSTILE}},
        "name": {"name": HOSTILE},
        "command": {"command": HOSTILE},
        "method": {"methods": (HOSTILE,)},
    }[place]
    page = page_of(**({"methods": ("lomp",), "seeds": (0,), "sparsities": (0.9,)} | changes))
    assert HOSTILE in " ".join(page.words)
    assert not any(image["src"].startswith("x") for image in page.named("img"))
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert sum(attributes.get("type") != "application/json" for attributes, _ in page.scripts) == 2


def test_versions_and_cells_are_counted(results_file):
    results = Results.read(results_file())
    analyses = [("row_norms", 3), ("spectrum", 6), ("sweep", 3)]
    assert cell_counts(results) == [("dense", 3), ("limit", 3), ("prune", 150), *analyses]
    assert versions(results) == [("python", "3.13.1"), ("torch", "2.13.0"), ("numpy", "2.4.0")]
    (environment,) = environments(results)
    assert environment.num_cells == 168
    assert ("versions.torch", "2.13.0") in environment.facts


def test_a_commit_is_short_in_the_header_and_whole_in_the_footer(results_file):
    results = Results.read(results_file(methods=("dense",), seeds=(0,), analyses=False))
    commit = "0123456789abcdef0123456789abcdef01234567+changes"
    cells = {name: dataclasses.replace(cell, environment={"commit": commit}) for name, cell in results.cells.items()}
    results = dataclasses.replace(results, cells=cells)
    assert versions(results) == [("commit", "0123456789+changes")]
    assert environments(results)[0].facts == (("commit", commit),)


def test_the_page_says_first_that_networks_guess_and_once_that_there_is_one_seed(results_file, tmp_path, monkeypatch):
    path = results_file(methods=("lomp", "imp"), seeds=(0,))
    results = Results.read(path)
    rows = results.rows.assign(dense_test_accuracy=0.102, test_accuracy=0.11)
    monkeypatch.setattr(Results, "read", lambda _: dataclasses.replace(results, rows=rows))
    page = write_report(path, tmp_path / "report", command=COMMAND).read_text(encoding="utf-8")
    assert (
        '<p class="headline">The dense network itself cannot be told from guessing (10.20% with 10 classes): '
        "train longer before comparing methods.</p>"
    ) in page
    assert page.count("One seed: no number has an interval") == 1
    assert "keeps its accuracy" not in page
