"""Run the pages of a profile within a budget, first what settles most claims a second."""

import ctypes
import functools
import glob
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from companion.archive import archive, check_label, shortened
from companion.build import Pairs, given, plans_of_book
from companion.claims import load_claims
from companion.errors import UsageError
from companion.files import plain
from companion.markdown import duration
from companion.page.kept import archived
from companion.run import Plan, finished, times
from companion.verdicts import judge, kept_runs, ranked

_UNITS = {"h": 3600, "m": 60, "s": 1}
_START = 5.0  # seconds that the kernel of a page may need to start, which none can be shorter than
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@dataclass(frozen=True)
class Step:
    """A page that the campaign may run: what it would settle, and for how much."""

    todo: Plan
    overrides: tuple[tuple[str, str], ...]  # those that it has
    settles: int  # claims that no run so near to the document has judged
    seconds: float | None  # that it took before
    at: str | None  # another profile where that was: it tells only how pages compare
    jobs: int  # that an interrupted run has done
    done: bool  # whether it was run before

    @property
    def name(self) -> str:
        """Of the notebook."""
        return self.todo.notebook.name

    @property
    def expected(self) -> str:
        """The time in words."""
        if self.seconds is None:
            return "not known"
        return duration(self.seconds) + (f" at {self.at}" if self.at else "")

    @property
    def least(self) -> float:
        """Seconds that it takes at least, as far as is known."""
        # of a page that is half done less is left than it took
        return _START if self.seconds is None or self.at or self.jobs else self.seconds


@dataclass(frozen=True)
class Ended:
    """What became of a step."""

    step: Step
    what: str  # "done", "was done", "stopped", "failed", "not archived" or "left"
    seconds: float
    files: tuple[Path, ...] = ()  # kept in the archive


def seconds_of(text: str) -> float:
    """A time such as 2h, 90m or 1h30m in seconds. Raises UsageError on anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or not 0 < total < float("inf"):
        raise UsageError(f"--budget {text!r}: allowed are times such as 2h, 90m, 1h30m or 45s")
    return total


def steps(
    root: Path,
    profile: str,
    pages: Sequence[str] = (),
    overrides: Pairs = (),
) -> list[Step]:
    """The pages in the order in which a campaign takes them.

    root, profile, overrides, pages: as for `build.plans_of_book`.
    Pages that an interruption left half done come first, then those that settle most claims a
    second; a claim counts where no run kept or finished is as near to its document as the page at
    this profile can be. Pages whose time no earlier run tells come last. Raises UsageError as
    `build.plans_of_book` does.
    """
    plans = plans_of_book(root, profile, overrides, pages)
    book, here = load_claims(root), [finished(todo) for todo in plans]
    runs = [*kept_runs(root), *filter(None, here)]
    judged = judge(book, runs)
    found = []
    for todo, done in zip(plans, here, strict=True):
        name = todo.notebook.name
        depth = _reachable(todo, book.evidence.get(name, []))
        settles = sum(
            all(answer.depth > depth for answer in item.answers)
            for item in judged
            if item.claim.notebook == name and profile in item.claim.profiles
        )
        of_page = [run for run in runs if run["notebook"] == name]
        past = {run["profile"]: run["provenance"]["wall_seconds"] for run in of_page} | times(todo)
        at = profile if profile in past else max(past, key=past.__getitem__, default=None)
        own, seconds = tuple(given(todo.notebook, overrides)), past.get(at)
        other = at if at != profile else None
        found.append(Step(todo, own, settles, seconds, other, _jobs(todo), done is not None))
    worth = lambda step: step.settles / max(step.seconds or 1.0, 1e-3)
    return sorted(found, key=lambda step: (step.jobs == 0, step.seconds is None, -worth(step)))


def campaign(
    todo: Sequence[Step],
    budget: float | None = None,
    label: str | None = None,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> list[Ended]:
    """Run the steps one after the other, each in a process of its own, while the budget lasts.

    budget: seconds, None for no end: at it the page that runs is interrupted, its finished jobs are
        kept, and the same call goes on there. A page that would not fit is left for one that does,
        and begun only where none fits; one that is half done counts as fitting. label: what
        finished pages are archived under, as soon as they are; replace: also where the label holds
        a run of other code, of another profile or with other parameters.
    Returns an Ended for each step, a page that failed among them. Raises UsageError before anything
    runs, where the label is taken or no page can fit into the budget.
    """
    if label is not None:
        check_label(label)
        _free(todo, label, replace)
    start, ended, waiting = time.monotonic(), [], list(todo)
    shortest = min((step.least for step in todo if not step.done), default=0.0)
    if budget is not None and budget < shortest:
        why = ", which its kernel may need to start" if shortest == _START else ""
        told = f"is shorter than the shortest page, about {duration(shortest)}{why}"
        raise UsageError(f"--budget {budget:g}s {told}")
    while waiting:
        left = None if budget is None else budget - (time.monotonic() - start)
        step = _next(waiting, left)
        if step is None:
            break
        waiting.remove(step)
        clock = time.monotonic()
        what = "was done" if step.done else _run(step, left, say)
        files: tuple[Path, ...] = ()
        if label is not None and what in ("done", "was done"):
            path = step.todo.folder / f"{step.name}.json"
            try:
                files = tuple(archive(step.todo.root, path, label))
            except (UsageError, OSError, ValueError) as error:  # the other pages are to be run
                say(f"{step.name}: not archived: {error}")
                what = "not archived"
        ended.append(Ended(step, what, time.monotonic() - clock, files))
    return [*ended, *(Ended(step, "left", 0.0) for step in waiting)]


def table(steps: Iterable[Step]) -> list[tuple[str, ...]]:
    """The rows that tell a plan, a head first."""
    head = ("page", "claims it settles", "expected", "jobs done")
    return [head, *((s.name, str(s.settles), s.expected, str(s.jobs or "")) for s in steps)]


def account(ended: Iterable[Ended]) -> list[tuple[str, ...]]:
    """The rows that tell what became of the steps, a head first."""
    rows: list[tuple[str, ...]] = [("page", "", "time", "jobs kept", "archived")]
    for end in ended:
        took = duration(end.seconds) if end.what not in ("left", "was done") else ""
        jobs = "" if end.what in ("done", "was done") else str(_jobs(end.step.todo) or "")
        rows.append((end.step.name, end.what, took, jobs, end.files[0].name if end.files else ""))
    return rows


def _reachable(todo, ranks):
    """The depth of the nearest rank that the plan may reach: records are not known before."""
    hopeful = [
        rank.model_copy(
            update={"when": {k: v for k, v in rank.when.items() if k in todo.parameters}}
        )
        for rank in ranks
    ]
    return ranked({"parameters": todo.parameters, "records": {}}, hopeful)[0]


def _jobs(todo):
    return sum(part.suffix != ".unfinished" for part in todo.parts.glob("*"))


def _free(todo, label, replace):
    """Raise UsageError where the label holds a run of a page that is not the one to be made."""
    for step in todo:
        path = step.todo.root / "book" / "archive" / f"{step.name}-{label}.json"
        if not replace and path.exists():
            (run,) = archived(glob.escape(str(path))).values()
            if differs := _differs(run, step.todo):
                raise UsageError(
                    f"--label {label!r}: {path.name} is of {differs}; another label, or --replace"
                )


def _differs(run, todo):
    """In what an archived run is not the one of a plan; nothing where it is."""
    if run["changed"]:
        return "other code"
    if "parameters" not in run:
        return "no page"  # but of `make bench`
    if run["profile"] != todo.profile:
        return f"profile {run['profile']}"
    were, are = run["parameters"], plain(shortened(todo.parameters))
    names = [name for name in sorted(were.keys() | are.keys()) if were.get(name) != are.get(name)]
    return f"other parameters ({', '.join(names)})" if names else ""


def _next(waiting, left):
    """The first step that fits into the seconds left, else the first; None where none are left."""
    if left is not None and left <= 0:
        return next((step for step in waiting if step.done), None)
    # of a page that is half done nobody knows how much is left: it was begun to be ended
    takes = lambda step: 0 if step.jobs or step.done else step.seconds or math.inf
    fits = [step for step in waiting if left is None or takes(step) <= left]
    return next(iter(fits or waiting))


def _ready(parent, libc):
    """What a page's process does before it is one: it is to end by an interrupt, as Ctrl-C is."""
    # in the background of a shell it is ignored, and would be by the page too
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if libc is not None:  # elsewhere a campaign that is killed leaves its page running
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before that
            os._exit(1)


def _run(step, left, say):
    """Run a page in its own process; what became of it."""
    words = ["run", step.name, "--profile", step.todo.profile]
    words += [word for name, value in step.overrides for word in ("-p", name, value)]
    say(f"{step.name}: running, expected {step.expected}")
    start = "from companion.start import main; main()"
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # opened before the fork
    process = subprocess.Popen(
        [sys.executable, "-c", start, *words],
        cwd=step.todo.root,
        preexec_fn=functools.partial(_ready, os.getpid(), libc),
    )
    try:
        code = process.wait(left)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
        return "stopped"
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    return "done" if code == 0 else "failed"
