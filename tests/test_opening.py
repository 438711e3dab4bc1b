"""A page opens with its answer, the evidence and the figure: cells in, cells out."""

import re
from pathlib import Path

import nbformat
import pytest
from test_claims import a_run, judged_on

from companion.claims import Rank
from companion.errors import UsageError
from companion.notebooks import names
from companion.opening import evidence, opened

ROOT = Path(__file__).parents[1]
ANSWER = ":::{admonition} Answer\n:class: answer\nIt holds.\n:::\n"
FIGURE = {"figure": {"name": "fig-one", "caption": "Look left.\n"}, "image": {"alt": "a line"}}
NEAR = Rank(grade="A", of="its own images", when={"size": 256})


def page(text=f"# Title\n\nDoes it hold?\n\n{ANSWER}\nThe equation.\n", **figures):
    """Cells of a page: a text, a cell of code, and a figure for each name, tagged and told so."""
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("x = 1")]
    for data, tags, told in figures.values():
        cells.append(nbformat.v4.new_code_cell("draw()", metadata={"tags": tags, "mystnb": told}))
        cells[-1].outputs = [nbformat.v4.new_output("display_data", data=each) for each in data]
    return cells


def lead(data=({"image/png": "AA=="},), tags=("lead", "hide-input"), told=FIGURE):
    return list(data), list(tags), told


def test_what_moves_is_linked_from_the_top():
    frames = '<div class="frames" role="group" aria-label="A &amp; b" data-x="1"></div>'
    plain = {"text/html": '<div class="compare" style="x"></div>', "text/plain": "a | <b>"}
    shown = [{"text/html": frames, "text/plain": "A & b"}, {"text/html": "<p>frames</p>"}, plain]
    cells = page(figure=lead(), moved=(shown, [], {}))
    found = opened(cells, "toy", [])
    (told,) = [cell.source for cell in found if cell.get("id") == "companion-moved"]
    links = ['<a href="#moved-1">A &amp; b</a>', '<a href="#moved-2">a | &lt;b&gt;</a>']
    assert told == f"Below, to move by hand: {'; '.join(links)}."
    pictures = [output.data["text/html"] for output in found[-1].outputs]
    assert pictures[0] == frames.replace("<div", '<div id="moved-1"')
    assert pictures[1] == "<p>frames</p>" and pictures[2].startswith('<div id="moved-2" class=')
    assert [cell.get("id") for cell in found].index("companion-moved") == 2  # behind the figure
    assert "moved" not in str(opened(page(figure=lead()), "toy", []))


def test_a_page_without_an_answer_stays_as_it_is():
    cells = page("# Title\n\nText.\n")
    assert opened(cells, "toy", []) == cells


def test_answer_evidence_and_figure_come_before_any_code():
    cells = page(figure=lead(({"application/x": "a record"}, {"image/svg+xml": "<svg/>"})))
    item = judged_on([a_run(2.0)], at_least=1.0)
    found = opened(cells, "toy", [item])
    kinds = [cell.cell_type for cell in found]
    assert kinds == ["markdown", "markdown", "code", "markdown", "code", "markdown", "code"]
    assert found[0].source == f"# Title\n\nDoes it hold?\n\n{ANSWER}" and found[0].id == cells[0].id
    assert found[1].source.endswith("In full: [](#numbers-toy).")
    assert found[2].source and "remove-input" in found[2].metadata["tags"]
    # picture and record stand once each, and the figure has one number
    assert [output["data"] for output in found[2].outputs] == [{"image/svg+xml": "<svg/>"}]
    assert [output["data"] for output in found[6].outputs] == [{"application/x": "a record"}]
    told = found[2].metadata["mystnb"]
    where = "Look left. Made [below](#made-fig-one).\n"
    assert told["figure"] == {"name": "fig-one", "caption": where}
    assert told["image"] == {"alt": "a line"}
    assert found[3].source == "The equation." and found[4] == cells[1]
    assert found[5].source.startswith("(made-fig-one)=\n[The figure at the top](#fig-one)")
    assert found[6].source == "draw()" and "mystnb" not in found[6].metadata
    assert cells[-1].metadata["mystnb"]["figure"]["name"] == "fig-one"  # as it was
    nbformat.validate(nbformat.v4.new_notebook(cells=found))


def test_a_page_of_tables_has_no_figure():
    found = opened(page(), "toy", [])
    assert [cell.cell_type for cell in found] == ["markdown", "markdown", "code"]


def test_a_page_that_no_claim_is_about_has_no_evidence():
    found = opened(page(figure=lead()), "toy", [])
    kinds = [cell.cell_type for cell in found]
    assert kinds == ["markdown", "code", "markdown", "code", "markdown", "code"]


@pytest.mark.parametrize(
    "figures",
    [{"one": lead(), "two": lead()}, {"one": lead(data=[{"text/plain": "no picture"}])}],
    ids=["two", "no picture"],
)
def test_the_lead_is_one_figure(figures):
    with pytest.raises(UsageError, match=r"notebook .toy.: (one|the) cell .* `lead`"):
        opened(page(**figures), "toy", [])


def test_a_lead_without_a_name_has_no_place_to_lead_to():
    told = {"figure": {"caption": "Look."}}
    with pytest.raises(UsageError, match="must show a named figure"):
        opened(page(one=lead(told=told)), "toy", [])


def test_evidence_is_counted_by_the_nearest_run_of_each_claim():
    far, near = a_run(2.0, size=64), a_run(0.5, size=256, kept="a big one")
    claim = dict(at_least=1.0, profiles=["laptop"])
    both = judged_on([far, near], [NEAR], **claim)  # the runs disagree, the nearest is A
    one = judged_on([far], [NEAR], **claim)
    none = judged_on([], [NEAR], **claim)
    proof = judged_on([far], [NEAR], kind="identity", **claim)
    assert evidence([one, both, none, proof]) == (
        "**Evidence** for 2 published claims, the nearest run of each: "
        "grade **A** (its own images): ◐ 1 mixed; grade **C** (another setting): ✔ 1 reproduced."
    )
    assert evidence([none, proof]) == ""


@pytest.mark.parametrize("name", names(ROOT))
def test_an_answer_has_three_sentences_at_most(name):
    source = (ROOT / "notebooks" / f"{name}.md").read_text()
    (answer,) = re.findall(r":class: answer\n(.*?)\n:::", source, re.DOTALL) or ["."]
    told = re.sub(r"\{\w+(:\w+)?\}`[^`]*`|\$[^$]*\$|Fig\.|eq\.", "x", answer)
    assert 1 <= len(re.findall(r"[.?!](?=\s+[A-Zx]|$)", told)) <= 3
