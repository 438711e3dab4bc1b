"""The scoreboard: every claim with the runs that answer it, and the summary of the title page."""

from itertools import groupby

from companion.claims import Claim
from companion.errors import known
from companion.markdown import cards, number, table
from companion.verdicts import DIFFERS, MIXED, NOT_RUN, SYMBOLS, Judged, counts

PUBLISHED = ("number", "ordering", "statement")
_HEAD = ("Where", "Verdict", "Statement", "Published", "Runs, nearest first", "Bound")
_PARTS = {
    "Published numbers, orderings and statements": PUBLISHED,
    "Identities: theorems, and checks of our code": ("identity",),
    "Ours, not published": ("ours",),
}


def scoreboard(judged: list[Judged], titles: dict[str, str], profile: str) -> str:
    """Return the scoreboard page as MyST Markdown.

    judged: list of Judged; titles: {bib key: title of the document}; profile: name.
    Raises UsageError where a claim's document is not among the titles.
    """
    lines = [
        "(scoreboard)=",
        "# Scoreboard",
        "",
        "Every published number and statement, judged on the runs of this book at profile "
        f"`{profile}` and on the runs that it keeps. Grade A: the document's data and setting; B: "
        "its data, smaller or fewer; C: a stand-in. The verdict is that of the nearest run, "
        "*undecided* where the interval of a number over images or seeds holds the bound, "
        "*mixed* where two runs say the opposite. An interval covers with 99 %, so that one "
        "ordering in two hundred is called wrongly by chance; where all of several must hold, "
        "what may miss is divided by their number. Why something differs stands in its row.",
        "",
        *_counted(judged),
    ]
    documents = {item.claim.document for item in judged}
    for document in documents:
        known("document in book/claims", document, list(titles))
    for document in filter(documents.__contains__, titles):
        own = [item for item in judged if item.claim.document == document]
        lines += ["", f"## {titles[document]}", "", f"{{cite:t}}`{document}`"]
        for title, kinds in _PARTS.items():
            group = [item for item in own if item.claim.kind in kinds]
            answered = [item for item in group if not item.claim.takes]
            if answered:
                lines += ["", f"### {title}", "", *cards(_HEAD, map(_row, answered))]
            lines += _out_of_reach([item.claim for item in group if item.claim.takes])
    return "\n".join(lines) + "\n"


def summary(judged: list[Judged], profile: str, date: str) -> str:
    """Return the scoreboard's summary in MyST Markdown for the title page.

    judged: list of Judged; profile: name; date: text.
    """
    asked = [item for item in judged if item.claim.kind in PUBLISHED]
    return "\n".join(
        [
            f"Of {len(asked)} published numbers, orderings and statements, at profile `{profile}` "
            f"and in the runs kept, {date}:",
            "",
            *_counted(judged),
            "",
            "All of them, with bounds, intervals and causes: {doc}`/sections/scoreboard`.",
            "",
        ]
    )


def _counted(judged):
    by_part = [counts(judged, kinds) for kinds in _PARTS.values()]
    rows = [
        (f"{sign} {verdict}", *(str(found[verdict] or "–") for found in by_part))
        for verdict, sign in SYMBOLS.items()
    ]
    return table(("", "published", "identities", "ours"), rows)


def _out_of_reach(claims: list[Claim]) -> list[str]:
    """What no run here can answer, folded, one table for each reason."""
    lines = []
    for (where, takes), group in groupby(claims, lambda claim: (claim.where, claim.takes)):
        own = list(group)
        lines += ["", f":::{{dropdown}} {where}: {len(own)} not run"]
        lines += [f"It takes {takes.strip()}", ""]
        rows = [(claim.statement, number(claim.published)) for claim in own]
        lines += [*table(("Statement", "Published"), rows), ":::"]
    return lines


def _row(item):
    claim = item.claim
    runs = [f"**{a.rank.grade}** {SYMBOLS[a.verdict]} {a.ours} ({a.run})" for a in item.answers]
    return (
        f"{{doc}}`{claim.where} </sections/{claim.notebook}>`",
        f"{item.shown} ({item.note})" if item.note else item.shown,
        claim.statement.strip() + _why(item),
        number(claim.published),
        "; ".join(runs) or "–",
        f"{claim.tolerance}: {claim.because}",
    )


def _why(item):
    claim = item.claim
    if item.verdict == NOT_RUN:
        return f" *Stated for: {', '.join(claim.profiles)}.*"
    if not claim.explanation or not (item.verdict in (DIFFERS, MIXED) or item.note):
        return ""
    shown = ""
    if isinstance(claim.cause, list):
        shown = f" Shown by {', '.join(f'`{name}`' for name in claim.cause)}."
    elif claim.cause:
        shown = " **Cause not known.**"
    return f" *{claim.explanation.strip()}*{shown}"
