"""The scoreboard: every claim with the runs that answer it, and the summary of the title page."""

import csv
import io
import json
from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import get_args
from urllib.parse import quote

from companion.anchors import NUMBERS, claim_anchor, claim_id, claim_link
from companion.claims import KINDS, Grade
from companion.errors import known
from companion.markdown import number, table
from companion.page.letters import lettered
from companion.verdicts import DIFFERS, MIXED, NOT_RUN, SYMBOLS, Judged, counts

PUBLISHED = ("number", "ordering", "statement")
_HEAD = ("Where", "Verdict", "Statement", "Published", "Runs, nearest first")
# the squares lead through the page: its table needs the room that a list of contents takes
_WIDE = ("---", "html_theme.sidebar_secondary.remove: true", "---")
_PARTS = {"published": PUBLISHED, "identities": ("identity",), "ours": ("ours",)}


def scoreboard(judged: list[Judged], titles: dict[str, str], profile: str) -> str:
    """Return the scoreboard page as MyST Markdown; `downloads` go into files/ beside it.

    judged: list of Judged; titles: {bib key: title of the document}; profile: name.
    Raises UsageError where a claim's document is not among the titles.
    """
    for document in {item.claim.document for item in judged}:
        known("document in book/claims", document, list(titles))
    part = {kind: place for place, kinds in enumerate(_PARTS.values()) for kind in kinds}
    ordered = sorted(judged, key=lambda item: (item.claim.takes != "", part[item.claim.kind]))
    documents = {
        document: own
        for document in titles
        if (own := [item for item in ordered if item.claim.document == document])
    }
    lines = [
        *_WIDE,
        "(scoreboard)=",
        "# Scoreboard",
        "",
        "Every published number and statement, judged on the runs of this book at profile "
        f"`{profile}` and on archived runs. Grade A: the document's data and setting; B: "
        "its data, smaller, fewer or solved less far; C: a stand-in. The verdict is that of the "
        "nearest run; {doc}`/about` says how it is made. The link of a row leads to the cell that "
        "computes the answer, its fold holds the bound with its reason, and why something differs. "
        "The link of an archived run leads to its column beside the others of that page. What a "
        "document says in words stands in quotation marks.",
        "",
        *_this_run(judged),
        "To download: the claims as {download}`CSV <files/claims.csv>` and as "
        "{download}`JSON <files/claims.json>`.",
        "",
        *_counted(judged),
        "",
        *_filters({document: titles[document] for document in documents}),
    ]
    for document, own in documents.items():
        lines += ["", *_squares(document, titles[document], own)]
    for document, own in documents.items():
        lines += ["", f"({_section(document)})=", f"## {titles[document]}"]
        lines += ["", f"{{cite:t}}`{document}`"]
        answered = [item for item in own if not item.claim.takes]
        if answered:
            lines += ["", *_rows(_HEAD, answered)]
        lines += _out_of_reach([item for item in own if item.claim.takes])
    return "\n".join(lines) + "\n"


def summary(judged: list[Judged], profile: str, date: str) -> str:
    """Return the scoreboard's summary in MyST Markdown for the title page.

    judged: list of Judged; profile: name; date: text.
    """
    asked = [item for item in judged if item.claim.kind in PUBLISHED]
    return "\n".join(
        [
            f"Of {len(asked)} published numbers, orderings and statements, at profile `{profile}` "
            f"and in the archived runs, {date}:",
            "",
            *_counted(judged),
            "",
            "All of them, with bounds, intervals and causes: {doc}`/sections/scoreboard`.",
            "",
        ]
    )


def downloads(judged: list[Judged]) -> dict[str, str]:
    """Return the claims as data, {file name: content}: one entry or line a claim.

    judged: list of Judged. In the CSV the runs of a claim share a cell, and so do its causes.
    """
    entries = [_entry(item) for item in judged]
    flat = io.StringIO()
    if entries:
        writer = csv.DictWriter(flat, list(entries[0]))
        writer.writeheader()
        for entry in entries:
            runs = ("{grade} {verdict}: {ours} ({run})".format_map(run) for run in entry["runs"])
            flat_entry = {"cause": "; ".join(entry["cause"]), "runs": "; ".join(runs)}
            writer.writerow(entry | flat_entry)
    whole = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return {"claims.csv": flat.getvalue(), "claims.json": whole}


def _entry(item):
    claim = item.claim
    return {
        "id": claim.id,
        "document": claim.document,
        "kind": claim.kind,
        "where": claim.where,
        "statement": _line(claim.statement),
        "published": number(claim.published),
        "verdict": item.verdict,
        "grade": item.grade,
        "note": item.note,
        "bound": "" if claim.takes else claim.tolerance,
        "because": _line(claim.because),
        "explanation": _line(claim.explanation),
        "cause": [claim.cause] if isinstance(claim.cause, str) else claim.cause or [],
        "takes": _line(claim.takes),
        "page": claim.notebook,
        "record": claim.record or "",
        "runs": [
            {"run": a.run, "grade": a.rank.grade, "verdict": a.verdict, "ours": a.ours}
            for a in item.answers
        ],
    }


def _counted(judged):
    by_part = [counts(judged, kinds) for kinds in _PARTS.values()]
    rows = [
        (_verdict(verdict), *(str(found[verdict] or "–") for found in by_part))
        for verdict in SYMBOLS
    ]
    return table(("verdict", *_PARTS), rows)


def _filters(titles: dict[str, str]) -> list[str]:
    """The form that scoreboard.js shows and reads; without scripts all claims are shown."""
    choices = {
        "document": titles,
        "kind": {kind: kind for kind in KINDS},
        "verdict": {verdict: f"{sign} {verdict}" for verdict, sign in SYMBOLS.items()},
        "grade": {grade: f"{grade}, of the nearest run" for grade in get_args(Grade)},
    }
    lines = ['<form class="filters" autocomplete="off" hidden>']
    for name, told in choices.items():
        lines += [f'<label>{name.title()} <select name="{name}">', '<option value="">all</option>']
        lines += [
            f'<option value="{escape(value)}">{escape(text)}</option>'
            for value, text in told.items()
        ]
        lines += ["</select></label>"]
    return [
        *lines,
        '<button type="button">Show all</button>',
        '<p role="status" aria-live="polite"></p>',
        "<p>The choice stands in the page's address, to share or to keep. Arrow keys move along "
        "the squares below; each leads to its row.</p>",
        "</form>",
    ]


def _squares(document: str, title: str, judged: list[Judged]) -> list[str]:
    """A square a claim, in the colour and with the sign of its verdict, that leads to its row."""
    lines = [f'<nav class="squares" aria-label="{escape(title)}">']
    lines.append(f'<p><a href="#{_section(document)}">{escape(title)}</a></p>')
    for item in judged:
        name = escape(f"{item.claim.where}: {item.verdict}")
        whole = f"{name}. {escape(lettered(_line(item.claim.statement)))}"
        lines.append(
            f'<a class="{_class(item.verdict)}" href="#{quote(claim_id(item.claim.id))}" '
            f'aria-label="{name}" title="{whole}">{SYMBOLS[item.verdict]}</a>'
        )
    return [*lines, "</nav>"]


def _rows(head: tuple[str, ...], judged: Iterable[Judged]) -> list[str]:
    """A table with a row a claim, whose cells hold folds, which a pipe table cannot."""
    lines = [":::{list-table}", ":class: scoreboard", ":header-rows: 1", ""]
    for cells in ([[name] for name in head], *map(_row, judged)):
        for column, cell in enumerate(cells[: len(head)]):
            first, *rest = cell
            lines.append(("* - " if column == 0 else "  - ") + first)
            lines += [f"    {line}".rstrip() for line in rest]
    return [*lines, ":::"]


def _row(item: Judged) -> list[list[str]]:
    """The cells of a claim, each a list of lines."""
    claim = item.claim
    kept = {"document": claim.document, "kind": claim.kind, "verdict": item.verdict}
    kept["grade"] = item.grade
    where = claim_link(claim.notebook, claim.id, _line(claim.where))
    return [
        [f"{claim_anchor(claim.id, **kept)}{where}<br><small>{claim.kind}</small>"],
        [" ".join([_verdict(item.verdict), *_beside(item)])],
        [_text(claim.statement), *_fold(item)],
        [_text(number(claim.published))],
        [_text("; ".join(_runs(item)) or "–")],
    ]


def _beside(item):
    """What a reader of a verdict should know at once."""
    told = [item.note, f"without `{item.lacks}`" if item.lacks else ""]
    return [f"({one})" for one in told if one]


def _fold(item):
    """What a verdict rests on: the bound, its reason, and why the answer differs."""
    claim = item.claim
    if claim.takes:
        return []
    why = claim.explanation if item.verdict in (DIFFERS, MIXED) or item.note else ""
    named = f"Bound {claim.tolerance}" + ("; why it differs" if why else "")
    lines = ["<details>", f"<summary>{escape(named)}</summary>", "", _text(claim.because), ""]
    if claim.given:
        lines += [f"Only a run in which `{claim.given}` is true decides.", ""]
    if item.verdict == NOT_RUN:
        lines += [f"Stated for: {', '.join(claim.profiles)}.", ""]
    if why:
        shown = ""
        if isinstance(claim.cause, list):
            shown = f" Shown by {', '.join(f'`{name}`' for name in claim.cause)}."
        elif claim.cause:
            shown = " **Cause not known.**"
        lines += [_text(why) + shown, ""]
    return [*lines, f"Claim `{claim.id}`, record `{claim.record}`.", "", "</details>"]


def _out_of_reach(judged: list[Judged]) -> list[str]:
    """What no run here can answer, folded, one table for each reason."""
    lines = []
    for (where, takes), group in groupby(judged, lambda item: (item.claim.where, item.claim.takes)):
        own = list(group)
        lines += ["", f"::::{{dropdown}} {where}: {len(own)} not run"]
        lines += [f"It takes {_line(takes)}", "", *_rows(_HEAD[:4], own), "::::"]
    return lines


def _runs(item):
    """What each run says, by the first words of its title; all of them are told on its page."""
    beside = f"{item.claim.notebook}.html#{NUMBERS}"
    found = []
    for a in item.answers:
        name = escape(a.run.partition(", ")[0])
        named = f'<a href="{beside}" title="{escape(a.run)}">{name}</a>' if a.kept else name
        found.append(f"**{a.rank.grade}** {SYMBOLS[a.verdict]} {a.ours}, {named}")
    return found


def _this_run(judged):
    """A line that says of when and where the runs are that made the book."""
    here = {a.run.partition(", ")[2] for item in judged for a in item.answers if not a.kept}
    return [f"*This run*: {'; '.join(sorted(here))}.", ""] if here else []


def _section(document):
    """The anchor of the claims of a document."""
    return f"scoreboard-{document}"


def _verdict(verdict):
    square = f'<span class="{_class(verdict)}">{SYMBOLS[verdict]}</span>'
    return f'<span class="verdict">{square} {verdict}</span>'


def _class(verdict):
    return f"square {verdict.replace(' ', '-')}"


def _text(text):
    """A line that stays a paragraph, whatever it begins with: `> 1 dB` is no quotation."""
    return f"<span>{lettered(_line(text))}</span>"


def _line(text):
    return " ".join(text.split())
