"""What a page opens with: the answer, the evidence for it, and the one figure, before any code."""

import copy
import html
import re
from collections import Counter
from typing import Any

from companion.errors import UsageError
from companion.scoreboard import PUBLISHED
from companion.verdicts import SYMBOLS, Judged

_ANSWER = re.compile(r"^:::\{admonition\} Answer\n.*?^:::$\n?", re.MULTILINE | re.DOTALL)
_PICTURES = ("image/svg+xml", "image/png")
_MOVED = re.compile(r'<div class="(?:frames|loupe|compare|along)"(?:[^>]*? aria-label="([^"]*)")?')


def opened(cells: list[Any], name: str, judged: list[Judged]) -> list[Any]:
    """The cells of a page with evidence, figure, and links to what moves, behind its answer.

    cells: of the executed notebook; name: of the page; judged: its claims. The answer is an
        admonition of that title in the first cell, the figure what the cell tagged `lead` shows.
    Returns a new list; one without an answer is returned as it is. Raises UsageError where several
    cells have the tag, or one that shows no named figure.
    """
    import nbformat

    found = _ANSWER.search(cells[0].source)
    if not found:
        return cells
    first, rest = cells[0].copy(), cells[0].source[found.end() :].strip()
    first.source = cells[0].source[: found.end()]
    before = [first]
    if told := evidence(judged):
        text = f"{told} In full: [](#numbers-{name})."
        before.append(nbformat.v4.new_markdown_cell(text, id="companion-evidence"))
    figure, after = _lifted(cells[1:], name)
    before += figure
    if links := _moved(after):
        text = f"Below, to move by hand: {'; '.join(links)}."
        before.append(nbformat.v4.new_markdown_cell(text, id="companion-moved"))
    if rest:
        before.append(nbformat.v4.new_markdown_cell(rest, id="companion-introduction"))
    return [*before, *after]


def evidence(judged: list[Judged]) -> str:
    """One paragraph: the verdicts on what the document says, by the evidence they rest on."""
    by_rank: dict[tuple[str, str], Counter] = {}
    asked = [item for item in judged if item.claim.kind in PUBLISHED and item.answers]
    for item in sorted(asked, key=lambda item: item.grade):
        rank = item.nearest[0].rank
        by_rank.setdefault((rank.grade, rank.of), Counter())[item.verdict] += 1
    if not by_rank:
        return ""
    parts = []
    for (grade, of), found in by_rank.items():
        counted = (f"{SYMBOLS[v]} {found[v]} {v}" for v in SYMBOLS if found[v])
        parts.append(f"grade **{grade}** ({of}): {', '.join(counted)}")
    claims = f"{len(asked)} published claims" if len(asked) > 1 else "one published claim"
    return f"**Evidence** for {claims}, the nearest run of each: {'; '.join(parts)}."


def _lifted(cells, name):
    """The picture that the cell tagged `lead` shows, as a cell without code, and the other cells.

    In the place of the picture stands where it went. A list of that one cell, empty where no cell
    is tagged, for some pages are tables alone; and a list of the others.
    """
    import nbformat

    tagged = [k for k, cell in enumerate(cells) if "lead" in cell.metadata.get("tags", ())]
    if not tagged:
        return [], cells
    if len(tagged) > 1:
        raise UsageError(f"notebook {name!r}: one cell may be tagged `lead`, got {len(tagged)}")
    (at,) = tagged
    maker = copy.deepcopy(cells[at])
    told = maker.metadata.pop("mystnb", {})
    label = told.get("figure", {}).get("name")
    shown = [o for o in maker.outputs if any(kind in o.get("data", {}) for kind in _PICTURES)]
    if not shown or label is None:
        raise UsageError(f"notebook {name!r}: the cell tagged `lead` must show a named figure")
    maker.outputs.remove(shown[0])
    prompts = [key for key in told if key.startswith("code_prompt_")]
    if prompts:
        maker.metadata["mystnb"] = {key: told.pop(key) for key in prompts}
    caption = told["figure"]["caption"].strip()
    told["figure"]["caption"] = f"{caption} Made [below](#made-{label}).\n"
    # a cell without a source would not be shown
    lead = nbformat.v4.new_code_cell("# made below", id="companion-lead", outputs=shown[:1])
    # and run again it shows nothing
    lead.metadata.update({"tags": ["remove-input", "nbval-skip"], "mystnb": told})
    here = f"(made-{label})=\n[The figure at the top](#{label}) is made here."
    note = nbformat.v4.new_markdown_cell(here, id="companion-made")
    return [lead], [*cells[:at], note, maker, *cells[at + 1 :]]


def _moved(cells):
    """Links to the pictures that a reader moves, which get anchors: a list of HTML."""
    links: list[str] = []
    for output in (output for cell in cells for output in cell.get("outputs", ())):
        data = output.get("data", {})
        found = _MOVED.match(data.get("text/html", ""))
        if found:
            label = found[1] or html.escape(data["text/plain"].partition(":")[0])
            anchor = f"moved-{len(links) + 1}"
            data["text/html"] = data["text/html"].replace("<div", f'<div id="{anchor}"', 1)
            links.append(f'<a href="#{anchor}">{label}</a>')
    return links
