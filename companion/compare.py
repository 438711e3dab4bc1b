"""Records of runs side by side: what differs by more than the seed explains."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from companion.errors import UsageError
from companion.markdown import number
from companion.results import Setting, settings

SAME, BETTER, WORSE, DIFFERS, MISSING = "same", "better", "worse", "differs", "missing"
ALARM = 0.01  # chance that a notebook whose runs differ by the seed alone shows any difference
# Relative tolerance without a spread: plain instead of vector instructions moved no record of the
# pages above VANISHING by more than 1.2e-3 at profile smoke. With a spread it need not be as wide.
ROUNDING, FLOAT32, VANISHING = 2e-3, 1e-6, 1e-12


@dataclass(frozen=True)
class Difference:
    """One record of two settings."""

    name: str
    unit: str
    reference: list  # values, one a run
    values: list
    tolerance: float | None  # None where equality is asked for
    verdict: str

    @property
    def change(self) -> float | None:
        """Mean of the values less that of the reference, None where there is none."""
        if self.verdict == MISSING or not (_numbers(self.reference) and _numbers(self.values)):
            return None
        return statistics.fmean(self.values) - statistics.fmean(self.reference)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds of the reference, None for one run."""
        return _spread(self.reference)


def compare(paths: Iterable[Path]) -> dict[str, list[Setting]]:
    """Group the runs under paths into settings to be shown side by side.

    paths: files or folders, see `results.read`; the first setting of a notebook is its reference.
    Returns {notebook: list of Setting}. Raises UsageError as `settings` does, and where no notebook
    is there in two settings.
    """
    found: dict[str, list[Setting]] = {}
    for path in paths:
        for setting in settings(path):
            found.setdefault(setting.notebook, []).append(setting)
    if all(len(sides) == 1 for sides in found.values()):
        raise UsageError(
            f"nothing to compare: {', '.join(map(str, paths))} hold one setting of "
            f"{', '.join(found)}; give two"
        )
    return found


def differences(reference: Setting, other: Setting, pooled: bool = True) -> list[Difference]:
    """Compare each record of two settings.

    reference, other: Setting. pooled: whether the spread over seeds is that of both; else of the
        reference alone, as it must be where the other is on trial.
    With m and n seeds and the standard deviation s of the records over them, with d degrees of
    freedom, the tolerance is t s sqrt(1/m + 1/n), t being the quantile 1 - ALARM / (2 records) of
    Student's law with d degrees, and at least FLOAT32 times the reference. Without a spread it is
    ROUNDING times the reference, at least VANISHING; texts and truth values must be among those of
    the reference, and so must integers that the seed does not change.
    Returns a list of Difference, one a record of either, in the order of the reference.
    """
    names = dict.fromkeys(name for side in (reference, other) for name in _names(side))
    return [_difference(name, reference, other, pooled, len(names)) for name in names]


def of_same_setting(run: dict, references: list[Setting]) -> Setting:
    """Find the Setting among references that a run repeats.

    run: result of `read`. All but seed, device and code must be the same.
    Returns a Setting. Raises UsageError where there is none, naming what differs, or more.
    """
    same = [side for side in references if side.notebook == run["notebook"]]
    if not same:
        has = ", ".join(sorted({side.notebook for side in references}))
        raise UsageError(f"the reference has no run of {run['notebook']}; it has: {has}")
    apart = {id(side): _apart(run, side) for side in same}
    found = [side for side in same if not apart[id(side)]]
    if not found:
        nearest = min(same, key=lambda side: len(apart[id(side)]))
        raise UsageError(
            f"the reference has no run of {run['notebook']} with the parameters of {run['path']}; "
            f"nearest: {'; '.join(apart[id(nearest)])}"
        )
    if len(found) > 1:
        raise UsageError(f"the reference has {len(found)} runs like {run['path']}, of other code")
    return found[0]


def titles(sides: list[Setting]) -> list[str]:
    """Name settings of one notebook by a letter and the parameters that differ among them."""
    varying = [
        key
        for key in dict.fromkeys(key for side in sides for key in side.parameters)
        if len({repr(side.parameters.get(key)) for side in sides}) > 1
    ]
    names = []
    for index, side in enumerate(sides):
        told = [f"{key} = {side.parameters.get(key, 'none')}" for key in varying]
        if len({side.profile for side in sides}) > 1:
            told.insert(0, side.profile)
        letter = chr(ord("A") + index) if index < 26 else f"A{index}"
        names.append(f"{letter}: {', '.join(told)}" if told else letter)
    return names


def values(side: Setting, name: str) -> list:
    """The values of a record in the runs of a Setting, in the order of the seeds."""
    return [run["records"][name]["value"] for run in side.runs if name in run["records"]]


def text(found: list, unit: str = "") -> str:
    """Values of a record as text: mean ± standard deviation, or all that occur."""
    if not found:
        return "–"
    if not _numbers(found):
        told = ", ".join(dict.fromkeys(number(value) for value in found))
        return f"{told} {unit}".strip() if _infinite(found) else told
    spread = _spread(found)
    shown = number(statistics.fmean(found))
    if spread is not None:
        shown += f" ± {spread:.2g}"
    return f"{shown} {unit}".strip()


def rule() -> str:
    """The rule of `differences`, in words for a reader of its result."""
    return (
        f"A difference counts where it exceeds t s √(1/m + 1/n): m and n are the numbers of seeds, "
        "s the standard deviation over seeds, t the quantile of Student's law at which a notebook "
        f"whose runs differ by their seeds alone shows any difference in {ALARM:.0%} of "
        f"cases. Without a spread, {ROUNDING:g} of the value is allowed, for rounding on other "
        "machines. Words, truth values and integers that the seed does not change must be equal."
    )


def _difference(name, reference, other, pooled, count):
    ours, theirs = values(reference, name), values(other, name)
    runs = (*reference.runs, *other.runs)
    about = next(run["records"][name] for run in runs if name in run["records"])
    unit, better = about["unit"], about["better"]
    if not ours or not theirs:
        return Difference(name, unit, ours, theirs, None, MISSING)
    if not (_numbers(ours) and _numbers(theirs)) or (
        len(set(ours)) == 1 and all(isinstance(value, int) for value in ours + theirs)
    ):
        if _infinite(ours + theirs):  # no mean, no spread: each has to be near one of the reference
            same = all(any(_near(value, one) for one in ours) for value in theirs)
        else:
            same = set(map(repr, theirs)) <= set(map(repr, ours))
        other = _verdict(ours, theirs, better) if _infinite(ours + theirs) else DIFFERS
        return Difference(name, unit, ours, theirs, None, SAME if same else other)
    groups = [ours, theirs] if pooled else [ours]
    limit = _tolerance(groups, len(ours), len(theirs), count)
    least = FLOAT32 if limit else ROUNDING
    limit = max(limit, least * abs(statistics.fmean(ours)), VANISHING)
    change = statistics.fmean(theirs) - statistics.fmean(ours)
    verdict = SAME if abs(change) <= limit else _verdict(ours, theirs, better)
    return Difference(name, unit, ours, theirs, limit, verdict)


def _verdict(ours, theirs, better):
    """What a difference means; of infinite numbers too, where all point one way."""
    if not better or not all(isinstance(value, int | float) for value in ours + theirs):
        return DIFFERS
    if _numbers(ours + theirs):
        ours, theirs = [statistics.fmean(ours)], [statistics.fmean(theirs)]
    if min(theirs) >= max(ours):
        return BETTER if better == "higher" else WORSE
    if max(theirs) <= min(ours):
        return BETTER if better == "lower" else WORSE
    return DIFFERS


def _tolerance(groups, m, n, count):
    """Half width of the interval of a difference of means of m and n values; 0 without a spread."""
    from scipy import stats  # late: a second

    freedom = sum(len(group) - 1 for group in groups)
    squares = sum(sum((x - statistics.fmean(group)) ** 2 for x in group) for group in groups)
    if not freedom or not squares:
        return 0.0
    quantile = float(stats.t.ppf(1 - ALARM / (2 * count), freedom))
    return quantile * math.sqrt(squares / freedom * (1 / m + 1 / n))


def _apart(run, side):
    """What sets a run apart from a setting, in words; the machine and its seed do not."""
    ours = {k: v for k, v in run["parameters"].items() if k not in ("seed", "device")}
    theirs = {k: v for k, v in side.parameters.items() if k != "device"}
    names = [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]
    told = [f"{key} {ours.get(key)!r}, reference {theirs.get(key)!r}" for key in names]
    if run["profile"] != side.profile:
        told.insert(0, f"profile {run['profile']!r}, reference {side.profile!r}")
    return told


def _names(side):
    return dict.fromkeys(name for run in side.runs for name in run["records"])


def _numbers(found):
    """Whether all are numbers that have a mean and a spread: an infinite one has none."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in found
    )


def _infinite(found):
    """Whether all are numbers and one is infinite."""
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    return plain and any(map(math.isinf, found))


def _near(value, one):
    """Whether two numbers are one but for rounding; an infinite one is near itself alone."""
    if math.isinf(value) or math.isinf(one):
        return value == one
    return abs(value - one) <= max(ROUNDING * abs(one), VANISHING)


def _spread(found):
    return statistics.stdev(found) if len(found) > 1 and _numbers(found) else None
