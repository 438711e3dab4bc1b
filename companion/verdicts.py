"""Verdicts: each run that answers a claim, and what all of them say together."""

import glob
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion.claims import KINDS, Book, Claim, Rank
from companion.markdown import number
from companion.page.kept import archived, files

REPRODUCED, DIFFERS, UNDECIDED = "reproduced", "differs", "undecided"
MIXED, NOT_RUN = "mixed", "not run"
SYMBOLS = {REPRODUCED: "✔", DIFFERS: "✘", UNDECIDED: "○", MIXED: "◐", NOT_RUN: "–"}


@dataclass(frozen=True)
class Answer:
    """What one run says of a claim."""

    ours: str
    verdict: str
    rank: Rank
    depth: int  # of the rank, 0 nearest to the document
    run: str  # which, in words
    kept: bool  # from the archive
    lacks: str = ""  # what the claim is given and the run has not


@dataclass(frozen=True)
class Judged:
    """A claim, its answers from the nearest to the document on, and the verdict of all."""

    claim: Claim
    answers: tuple[Answer, ...]

    @property
    def nearest(self) -> tuple[Answer, ...]:
        """Those of the rank that decides: the nearest one whose runs have what the claim is given;
        where no run has it, the nearest."""
        able = [answer for answer in self.answers if not answer.lacks] or self.answers
        return tuple(answer for answer in able if answer.depth == able[0].depth)

    @property
    def verdict(self) -> str:
        """That of the nearest runs; mixed where two runs say the opposite."""
        if not self.answers:
            return NOT_RUN
        if {REPRODUCED, DIFFERS} <= {answer.verdict for answer in self.answers}:
            return MIXED
        said = {answer.verdict for answer in self.nearest}
        return next(iter(said - {UNDECIDED}), UNDECIDED)

    @property
    def grade(self) -> str:
        """That of the evidence which decides, or nothing."""
        return self.nearest[0].rank.grade if self.answers else ""

    @property
    def shown(self) -> str:
        """The verdict with its sign."""
        return f"{SYMBOLS[self.verdict]} {self.verdict}"

    @property
    def lacks(self) -> str:
        """What no run has, so that nothing is decided."""
        return self.nearest[0].lacks if self.answers else ""

    @property
    def ours(self) -> str:
        """What the runs found."""
        return "; ".join(answer.ours for answer in self.answers)

    @property
    def broken(self) -> bool:
        """Whether a run contradicts what the claim says of it."""
        return self.note not in ("", _HOLDS)

    @property
    def note(self) -> str:
        """What a reader of the verdict should know, or nothing."""
        here = {answer.verdict for answer in self.answers if not answer.kept}
        if self.claim.status == REPRODUCED and DIFFERS in here:
            return "marked reproduced, does not hold in this run"
        if self.verdict in (DIFFERS, MIXED) and not self.claim.explanation:
            return f"{self.verdict}, and no explanation is given"
        if self.claim.status == DIFFERS and REPRODUCED in here:
            return _HOLDS
        return ""


_HOLDS = "marked differs, holds in this run"


def kept_runs(root: Path) -> list[dict[str, Any]]:
    """Read the runs of book/archive, each with its title as `kept`.

    root: project folder. What has no records, as that of `make bench`, is left out.
    """
    # one file at a time: runs of two pages may have the same title
    return [
        run | {"kept": title}
        for path in files(f"{glob.escape(str(root))}/book/archive/*.json")
        for title, run in archived(glob.escape(str(path))).items()
        if "records" in run
    ]


def judge(book: Book, runs: Iterable[dict[str, Any]]) -> list[Judged]:
    """Judge every claim on all runs that answer it.

    book: of `load_claims`. runs: contents of NAME.json; a kept one has `kept`, its title.
    Returns a list of Judged in the order of the claims. In a run of the present sources a record
    that is missing or of another kind counts as `differs`; a `partial` one then gives no answer.
    """
    by_page: dict[str, list] = {}
    for run in runs:
        place = ranked(run, book.evidence.get(run["notebook"], []))
        by_page.setdefault(run["notebook"], []).append((run, place))
    judged = []
    for claim in book.claims:
        found = [
            answer
            for run, place in by_page.get(claim.notebook, [])
            if run["profile"] in claim.profiles and (answer := _answer(claim, run, *place))
        ]
        judged.append(Judged(claim, tuple(sorted(found, key=lambda a: (a.depth, a.kept)))))
    return judged


def partial(run: dict[str, Any]) -> bool:
    """Whether a run need not have every record: a kept one, or one with parameters of its own."""
    return "kept" in run or bool(run.get("partial"))


def ranked(run: dict[str, Any], ranks: list[Rank]) -> tuple[int, Rank]:
    """Which of a page's ranks a run has, the first whose `when` it meets: (place, Rank)."""
    told = run["parameters"] | {name: entry["value"] for name, entry in run["records"].items()}
    for place, rank in enumerate(ranks):
        if all(told.get(key) in _list(wanted) for key, wanted in rank.when.items()):
            return place, rank
    return len(ranks), Rank(grade="C", of="another setting")


def counts(judged: Iterable[Judged], kinds: Iterable[str] = KINDS) -> dict[str, int]:
    """Return how many claims of these kinds have each verdict: {verdict: number}."""
    found = Counter(item.verdict for item in judged if item.claim.kind in set(kinds))
    return {verdict: found[verdict] for verdict in SYMBOLS}


def measured(value: Any, unit: str = "", interval: Sequence[float] = ()) -> str:
    """Return a value as text, with its interval to three digits of the interval's width."""
    told = [value, *interval]
    shown = [number(x) for x in told]
    if interval and math.isfinite(width := interval[1] - interval[0]) and width > 0:
        places = max(0, 2 - math.floor(math.log10(width)))
        rounded = [round(x, places) + 0.0 for x in told]  # + 0.0: what rounds to zero has no sign
        shown = [f"{x:.{places}f}" for x in rounded]
    first = f"{shown[0]} {unit}".strip()
    return f"{first} ({shown[1]} to {shown[2]})" if interval else first


def _answer(claim, run, depth, rank):
    entry = run["records"].get(claim.record)
    kept = "kept" in run
    if entry is None and partial(run):
        return None
    facts = run["provenance"]
    here = "this run", run["profile"], facts["device"], facts["date"][:10]
    title = run["kept"] if kept else ", ".join(here)
    told = rank, depth, title, kept
    if entry is None:
        return Answer(f"no record `{claim.record}`", DIFFERS, *told)
    ours = measured(entry["value"], entry["unit"], entry.get("interval", ()))
    if claim.given and run["records"].get(claim.given, {}).get("value") is not True:
        return Answer(ours, UNDECIDED, *told, lacks=claim.given)
    return Answer(ours, _verdict(claim, entry["value"], entry.get("interval")), *told)


def _verdict(claim, value, interval):
    if claim.is_ is not None:
        return REPRODUCED if value is claim.is_ else DIFFERS
    if isinstance(value, bool | str):
        return DIFFERS
    if interval is None:
        # a difference that is told without an interval says nothing of chance
        if claim.kind == "ordering":
            return UNDECIDED
        interval = value, value
    low, high = interval
    least, most = _bounds(claim)
    if least <= low and high <= most:
        return REPRODUCED
    return DIFFERS if high < least or low > most else UNDECIDED


def _bounds(claim):
    if claim.near is None:
        most = math.inf if claim.at_most is None else claim.at_most
        return (-math.inf if claim.at_least is None else claim.at_least), most
    middle = claim.near.value
    if math.isinf(middle):
        return middle, middle
    # rounding of the published decimals must not decide at the edge
    reach = claim.near.tolerance * (1 + 1e-9)
    return middle - reach, middle + reach


def _list(wanted):
    return wanted if isinstance(wanted, list) else [wanted]
