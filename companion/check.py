"""Judge the claims on runs, and hold runs to those of a reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from companion import build, compare, report, results
from companion.claims import load_claims
from companion.errors import known
from companion.files import plain
from companion.markdown import number
from companion.notebooks import load, names, of_profile, read_profiles
from companion.verdicts import judge, kept_runs, partial


@dataclass(frozen=True)
class Checked:
    """What was found: the suites of `report`, tables of texts to print, and remarks on the runs."""

    suites: list[report.Suite]
    tables: list[list[tuple]]
    remarks: list[str]


def check(
    root: Path,
    paths: Sequence[Path],
    profile: str,
    overrides: build.Pairs = (),
    reference: Path | None = None,
) -> Checked:
    """Judge the claims, and compare with a reference where one is given.

    root: project folder. paths: files and folders of runs, see `results.read`; without any the
        finished runs of the present sources at this profile with these overrides, see
        `build.plans_of_book`, and those that the book keeps. reference: path of runs that the
        records must agree with, record by record: see `compare.differences`.
    Returns a Checked. Raises UsageError as `results.read`, `build.finished_runs` and
    `compare.of_same_setting` do, and for a run of an unknown notebook.
    """
    book = load_claims(root)
    if paths:
        runs = [run for path in paths for run in results.read(path)]
        for run in runs:
            known(f"notebook in {run['path']}", run["notebook"], names(root))
            # with values of its own a run may leave out what a claim asks for
            run["partial"] = _unlike_profile(root, run)
    else:
        runs = build.finished_runs(book.claims, profile, overrides, root)
    suites, rows = [], [("claim", "published", "ours", "verdict", "")]
    for run in runs if paths else [*runs, *kept_runs(root)]:
        own = [claim for claim in book.claims if claim.notebook == run["notebook"]]
        judged = judge(book.model_copy(update={"claims": own}), [run])
        suites.append(report.of_claims(judged, run))
        for item in judged:
            if item.claim.takes or (partial(run) and not item.answers):
                continue
            published = number(item.claim.published)
            rows.append((item.claim.id, published, item.ours, item.shown, item.note))
    tables = [rows]
    if reference is not None:
        against = _against(runs, reference, everything=bool(paths))
        suites += against
        tables.append([("record", "reference", "this run", "verdict", "")])
        for case in (case for suite in against for case in suite.cases):
            verdict = f"{case.symbol} {case.verdict}"
            tables[-1].append((case.name, case.expected, case.found, verdict, case.remark))
    remarks = [
        f"{run['path']}: {told}; the claims are stated for the profile"
        for run in runs
        for told in run.get("partial", ())
    ]
    return Checked(suites, tables, remarks)


def _against(runs, reference, everything):
    """The suites of runs held to a reference: of the whole book, those that the reference has."""
    sides = results.settings(reference)
    held = {side.notebook for side in sides}
    own = [run for run in runs if everything or run["notebook"] in held]
    return [report.of_reference(run, compare.of_same_setting(run, sides)) for run in own]


def _unlike_profile(root, run):
    """What a run was given beside its profile, in words; seed and device make no other claim."""
    if run["profile"] not in read_profiles(root):
        return []
    expected = plain(of_profile(root, load(root, run["notebook"]), run["profile"]))
    return [
        f"{key} is {run['parameters'].get(key)!r}, not {value!r}"
        for key, value in expected.items()
        if key not in ("seed", "device") and value not in (None, run["parameters"].get(key))
    ]
