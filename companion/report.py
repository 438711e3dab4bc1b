"""What `check` and `compare` found, as JUnit XML and as HTML in one file that needs no server."""

import base64
from dataclasses import dataclass, field
from xml.etree import ElementTree

from companion import compare
from companion.keys import together
from companion.markdown import number
from companion.results import Setting, pictures
from companion.verdicts import DIFFERS, NOT_RUN, UNDECIDED, Judged

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Case:
    """One claim or record that was checked."""

    name: str
    expected: str
    found: str
    outcome: str  # PASSED, FAILED or SKIPPED
    verdict: str
    remark: str = ""

    @property
    def symbol(self) -> str:
        """The verdict at a glance."""
        return {PASSED: "✔", FAILED: "✘", SKIPPED: "–"}[self.outcome]


@dataclass(frozen=True)
class Suite:
    """All that was checked of one run."""

    what: str  # "claim" or "record"
    run: dict  # content of NAME.json
    cases: list[Case] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What was checked, of which run."""
        kind = "Claims on" if self.what == "claim" else "Against the reference:"
        which = self.run.get("path") or self.run.get("kept") or "the present run"
        return f"{kind} {self.run['notebook']}, {which}"

    @property
    def failed(self) -> int:
        """How many cases failed."""
        return sum(case.outcome == FAILED for case in self.cases)


def of_claims(judged: list[Judged], run: dict) -> Suite:
    """Return the Suite of the claims on a run; judged: list of Judged, all of that notebook.

    A claim that the book says differs, and that does, is SKIPPED: there is nothing to hold it to.
    So is one that is undecided. What no run can answer is left out.
    """
    cases = []
    for item in judged:
        claim = item.claim
        if claim.takes:
            continue
        remark = f"{claim.where}: {claim.statement.strip()} Published: {number(claim.published)}."
        outcome = PASSED
        if item.broken:
            outcome = FAILED
        elif item.verdict in (NOT_RUN, DIFFERS, UNDECIDED):
            outcome = SKIPPED
        if item.verdict == DIFFERS and claim.status == DIFFERS:
            remark += f" Differs, as the book says: {claim.explanation.strip()}"
        remark += f" ({item.note})" if item.note else ""
        found = (claim.id, claim.tolerance, item.ours, outcome, item.verdict)
        cases.append(Case(*found, " ".join(remark.split())))
    return Suite("claim", run, cases)


def of_reference(run: dict, reference: Setting) -> Suite:
    """Return the Suite of a run's records against a Setting: what is better does not fail."""

    # a run on trial is a setting of one seed
    alone = Setting(run["path"], run["notebook"], run["profile"], {}, "", (run,))
    cases = []
    for item in compare.differences(reference, alone, pooled=False):
        expected = compare.text(item.reference, item.unit)
        if item.tolerance is not None:
            expected += f", within {item.tolerance:.2g}"
        good = item.verdict in (compare.SAME, compare.BETTER)
        remark = "" if item.change is None else f"change {item.change:+.3g}"
        if item.spread and item.change is not None:
            remark += f", {abs(item.change) / item.spread:.1f} spreads"
        cases.append(
            Case(
                item.name,
                expected,
                compare.text(item.values, item.unit),
                PASSED if good else FAILED,
                item.verdict,
                remark,
            )
        )
    return Suite("record", run, cases)


def summary(suites: list[Suite]) -> str:
    """Say in a line what was checked and what failed."""
    cases = [case for suite in suites for case in suite.cases]
    count = {outcome: 0 for outcome in (PASSED, FAILED, SKIPPED)}
    for case in cases:
        count[case.outcome] += 1
    return f"{len(cases)} checked: " + ", ".join(f"{n} {name}" for name, n in count.items())


def junit(suites: list[Suite]) -> str:
    """Return the JUnit XML of suites as text: a test suite a run, a test case a claim or record."""
    root = ElementTree.Element("testsuites", name="companion check")
    for suite in suites:
        facts = suite.run["provenance"]
        skipped = sum(case.outcome == SKIPPED for case in suite.cases)
        one = ElementTree.SubElement(
            root,
            "testsuite",
            name=suite.title,
            tests=str(len(suite.cases)),
            failures=str(suite.failed),
            errors="0",
            skipped=str(skipped),
            time=str(facts["wall_seconds"]),
            timestamp=facts["date"],
        )
        told = {"profile": suite.run["profile"], "key": suite.run.get("key")}
        told |= {key: facts[key] for key in ("device", "commit", "seed")}
        told["code"] = together(facts["code"])
        properties = ElementTree.SubElement(one, "properties")
        for key, value in told.items():
            ElementTree.SubElement(properties, "property", name=key, value=str(value))
        for case in suite.cases:
            place = f"{suite.what}s.{suite.run['notebook']}"
            element = ElementTree.SubElement(
                one, "testcase", classname=place, name=case.name, time="0"
            )
            line = f"{case.verdict}: found {case.found or 'nothing'}, expected {case.expected}"
            if case.outcome != PASSED:
                tag = {FAILED: "failure", SKIPPED: "skipped"}[case.outcome]
                ElementTree.SubElement(element, tag, message=line).text = case.remark
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, 0)) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def check_page(suites: list[Suite]) -> str:
    """Return the HTML page of suites, as text."""
    shown = [
        {
            "title": suite.title,
            "what": suite.what.capitalize(),
            "facts": ", ".join(
                f"{name} {cell}"
                for name, cell in [("Seed", suite.run["provenance"]["seed"]), *_facts([suite.run])]
            ),
            "cases": suite.cases,
        }
        for suite in suites
    ]
    against = any(suite.what == "record" for suite in suites)
    return _render(
        "check.html",
        title="Claims and records checked",
        summary=summary(suites),
        rule=compare.rule() if against else "",
        suites=shown,
    )


def comparison_page(found: dict[str, list[Setting]]) -> str:
    """Return the HTML page of a comparison, as text.

    found: {notebook: list of Setting}, the first of each the reference: see `compare.compare`.
    """
    shown = []
    for name, sides in found.items():
        titles = compare.titles(sides)
        others = [compare.differences(sides[0], side) for side in sides[1:]]
        head = ["A"]
        for title in titles[1:]:
            letter = title.partition(":")[0]
            head += [letter, "Verdict", f"{letter} − A", "Tolerance", "In spreads"]
        names = dict.fromkeys(item.name for items in others for item in items)
        by_name = [{item.name: item for item in items} for items in others]
        shown.append(
            {
                "name": name,
                "titles": titles,
                "facts": _settings(sides),
                "head": head,
                "rows": [_row(record, sides, by_name) for record in names],
                "figures": _figures(sides, titles),
            }
        )
    return _render("comparison.html", title="Runs compared", rule=compare.rule(), notebooks=shown)


def lines(found: dict[str, list[Setting]]) -> list[str]:
    """Return a comparison as lines of text for a terminal: what differs, and how many do not."""
    told = []
    for name, sides in found.items():
        if len(sides) == 1:
            told.append(f"{name}: one setting only, {sides[0].path}")
            continue
        titles = compare.titles(sides)
        told += [
            f"{name}  {title}  ({_seeds(side)})" for title, side in zip(titles, sides, strict=True)
        ]
        for title, side in zip(titles[1:], sides[1:], strict=True):
            items = compare.differences(sides[0], side)
            moved = [item for item in items if item.verdict != compare.SAME]
            letter = title.partition(":")[0]
            told.append(f"{letter} − A: {len(moved)} of {len(items)} records differ")
            rows = [
                (
                    f"  {item.name}",
                    compare.text(item.reference, item.unit),
                    compare.text(item.values, item.unit),
                    "" if item.change is None else f"{item.change:+.3g}",
                    "" if item.tolerance is None else f"(tolerance {item.tolerance:.2g})",
                    item.verdict,
                )
                for item in moved
            ]
            told += columns(rows)
    return told


def columns(rows: list[tuple]) -> list[str]:
    """Return rows of texts, all of one length, as lines with their cells below each other."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(name, sides, others):
    """Cells of one record: the reference, then of each other side what sets it apart."""
    found = next(items[name] for items in others if name in items)
    cells = [{"text": compare.text(compare.values(sides[0], name), found.unit)}]
    same = True
    for items, side in zip(others, sides[1:], strict=True):
        item = items.get(name)
        if item is None:  # only a third setting has it
            cells += [{"text": "–"}] * 5
            continue
        same = same and item.verdict == compare.SAME
        ratio = "–"
        if item.spread and item.change is not None:
            ratio = f"{item.change / item.spread:+.1f}"
        look = {compare.BETTER: "good", compare.SAME: ""}.get(item.verdict, "bad")
        cells += [
            {"text": compare.text(compare.values(side, name), item.unit)},
            {"text": item.verdict, "look": look},
            {"text": "–" if item.change is None else f"{item.change:+.3g}"},
            {"text": "equal" if item.tolerance is None else f"{item.tolerance:.2g}"},
            {"text": ratio},
        ]
    return {"name": name, "cells": cells, "same": same}


def _settings(sides):
    """Rows (fact, one cell a setting) for the head of a comparison."""
    rows = [("Runs", [side.path for side in sides]), ("Seeds", [_seeds(side) for side in sides])]
    each = [_facts(side.runs) for side in sides]
    rows += [(cells[0][0], [cell[1] for cell in cells]) for cells in zip(*each, strict=True)]
    for key in dict.fromkeys(key for side in sides for key in side.parameters):
        found = [repr(side.parameters.get(key)) for side in sides]
        if len(set(found)) > 1:
            rows.append((key, found))
    return rows


def _facts(runs):
    """Rows (fact, text) on where runs of one setting come from."""
    facts = [run["provenance"] for run in runs]

    def all_of(key, end=None):
        return ", ".join(dict.fromkeys(str(fact[key])[:end] for fact in facts))

    return [
        ("Profile", runs[0]["profile"]),
        ("Device", all_of("device")),
        ("Date", all_of("date", 10)),
        ("Commit", all_of("commit", 12)),
        ("Code", ", ".join(dict.fromkeys(together(fact["code"])[:12] for fact in facts))),
        ("Seconds", ", ".join(f"{fact['wall_seconds']:.0f}" for fact in facts)),
    ]


def _seeds(side):
    seeds = [str(seed) for seed in side.seeds]
    return "no seed" if seeds == ["None"] else f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"


def _figures(sides, titles):
    """Figures of the first run of each setting, those of one name together."""
    found = [pictures(side.runs[0]) for side in sides]
    shown = []
    for name in dict.fromkeys(name for figures in found for name in figures):
        row = []
        for title, figures in zip(titles, found, strict=True):
            one = figures.get(name)
            source = one and f"data:{one['mime']};base64,{base64.b64encode(one['data']).decode()}"
            row.append({"title": title, "source": source, "alt": one["alt"] if one else ""})
        caption = next(figures[name]["caption"] for figures in found if name in figures)
        shown.append({"name": name, "caption": caption, "shown": row})
    return shown


def _render(template, **content):
    """The text of a template under companion/templates, its content escaped."""
    import jinja2  # late: a tenth of a second that few commands need

    loader = jinja2.PackageLoader("companion", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**content) + "\n"
