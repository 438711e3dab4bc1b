"""The campaign: what is worth most first, a budget that is kept, nothing finished that is lost."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from companion.campaign import account, campaign, seconds_of, steps
from companion.errors import UsageError
from companion.run import plan, run

RECORD = "from companion.page.record import record\nrecord('eps', eps)"
JOBS = """
import time
from pathlib import Path
from companion.page.jobs import side_by_side
def work(job):
    time.sleep(0 if Path("quick").exists() else 0.4)
    with Path("jobs.log").open("a") as log:
        log.write(str(job))
    return job
side_by_side(work, list(range(9)), "jobs")
"""
PARAMETERS = "eps: float = 2e-4  # temperature"
START = "from companion.start import main; main()"


@pytest.fixture
def three(project):
    """Pages toy, one and two, with one, no and three claims."""
    for name in ("toy", "one", "two"):
        project.notebook(name, RECORD, parameters=PARAMETERS)
    many = [{"id": f"two-{k}", "notebook": "two"} for k in range(3)]
    project.claims({}, *many)
    return project


def past(project, name, seconds, profile="laptop"):
    """A finished run of other code, which took so long."""
    folder = project.root / ".companion" / "runs" / f"{name}-{profile}"
    facts = {"date": "2026-01-01", "wall_seconds": seconds}
    project.write(
        folder.relative_to(project.root) / f"{name}.json",
        json.dumps({"profile": profile, "provenance": facts}),
    )


def order(project, *arguments, **options):
    return [step.name for step in steps(project.root, "laptop", *arguments, **options)]


def begun(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", START, "campaign", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5s", 1.5)]
)
def test_a_budget_is_a_time(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "h", "2x", "-1h", "0s", "1h 30m", "nan"])
def test_a_budget_that_is_none_is_named(text):
    with pytest.raises(UsageError, match=f"--budget {text!r}: allowed are times such as"):
        seconds_of(text)


def test_what_settles_most_a_second_comes_first(three):
    past(three, "toy", 1.0)
    past(three, "two", 10.0)
    past(three, "one", 2.0, "smoke")
    assert order(three) == ["toy", "two", "one"]
    past(three, "toy", 100.0)
    assert order(three) == ["two", "toy", "one"]
    told = {step.name: (step.settles, step.expected) for step in steps(three.root, "laptop")}
    assert told == {"toy": (1, "100 s"), "two": (3, "10 s"), "one": (0, "2 s at smoke")}
    run("two")
    assert {step.name: step.settles for step in steps(three.root, "laptop")}["two"] == 0


def test_a_rank_that_a_kept_run_has_is_settled_and_a_nearer_one_is_not(three):
    ranks = [{"grade": "A", "of": "cold", "when": {"eps": 1e-5, "data": "its own"}}]
    ranks += [{"grade": "C", "of": "else"}]
    path = three.root / "book/claims/one2020.yml"
    path.write_text(f"evidence: {json.dumps({'two': ranks})}\n{path.read_text()}")
    folder = run("two")
    settles = lambda *given: steps(three.root, "laptop", ["two"], given)[0].settles
    assert settles() == 0
    assert settles(("eps", "1e-5")) == 3
    assert (folder / "two.json").is_file()


def test_pages_are_run_archived_and_not_run_again(three):
    todo = steps(three.root, "laptop")
    ended = campaign(todo, label="here", say=lambda text: None)
    assert {end.what for end in ended} == {"done"}
    kept = sorted(path.name for path in (three.root / "book/archive").glob("*.json"))
    assert kept == ["one-here.json", "toy-here.json", "two-here.json"]
    again = campaign(steps(three.root, "laptop"), label="here")
    assert {end.what for end in again} == {"was done"}
    assert [row[1] for row in account(again)[1:]] == ["was done"] * 3


def test_a_page_that_fails_does_not_stop_the_others(three):
    three.notebook("two", "1 / 0", parameters=PARAMETERS)
    past(three, "two", 1.0)
    done = begun()
    text = done.communicate(timeout=120)[0]
    assert done.returncode == 1
    assert "ZeroDivisionError" in text
    assert [line.split()[:2] for line in text.splitlines()[-3:]] == [
        ["two", "failed"],
        ["toy", "done"],
        ["one", "done"],
    ]


def test_an_archive_that_cannot_be_written_does_not_stop_the_others(three):
    block = "from pathlib import Path\nPath('book/archive/two-here.json').mkdir(parents=True)"
    three.notebook("two", block, parameters=PARAMETERS)
    past(three, "two", 1.0)  # it comes first
    done = begun("--label", "here")
    text = done.communicate(timeout=120)[0]
    assert done.returncode == 1
    assert "two: not archived: " in text
    assert [(line.split()[0], line.split()[-1]) for line in text.splitlines()[-2:]] == [
        ("toy", "toy-here.json"),
        ("one", "one-here.json"),
    ]
    assert text.splitlines()[-3].startswith("two   not archived")


def test_the_budget_interrupts_and_the_next_call_goes_on(project):
    project.notebook("toy", JOBS.replace("0.4", "2"), parameters=PARAMETERS)
    project.claims({"record": "none"})
    ended = campaign(steps(project.root, "laptop"), 8.0)
    assert [end.what for end in ended] == ["stopped"]
    kept, log = len(list(plan("toy").parts.glob("*"))), project.root / "jobs.log"
    (project.root / "quick").touch()
    (step,) = steps(project.root, "laptop")
    assert step.jobs >= kept  # a job may end while its kernel does
    assert [end.what for end in campaign([step])] == ["done"]
    once_more(log)


def test_the_budget_ends_where_a_shell_lets_interrupts_be_ignored(project):
    project.notebook("toy", JOBS.replace("0.4", "30"), parameters=PARAMETERS)
    project.claims({"record": "none"})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        (end,) = campaign(steps(project.root, "laptop"), 8.0)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert end.what == "stopped" and end.seconds < 60


def test_what_fits_is_run_before_what_does_not(three):
    three.notebook("two", JOBS.replace("0.4", "30"), parameters=PARAMETERS)
    past(three, "two", 1e4)
    past(three, "one", 1.0)
    todo = steps(three.root, "laptop", ["one", "two"])
    assert [step.name for step in todo] == ["two", "one"]
    first, second = campaign(todo, 15.0)
    assert (first.step.name, first.what) == ("one", "done")
    assert second.step.name == "two" and second.what in ("stopped", "left")


def test_what_is_half_done_comes_first_although_it_took_longer_before(three):
    past(three, "two", 1e4)
    past(three, "one", 1.0)
    three.notebook("one", "1", parameters=PARAMETERS)
    three.notebook("two", RECORD, parameters=PARAMETERS)
    parts = plan("two").parts
    parts.mkdir(parents=True)
    (parts / "jobs-0").touch()
    (parts / "psgan-1.unfinished").touch()  # no job is done with it
    first, second = campaign(steps(three.root, "laptop", ["one", "two"]), 600.0)
    assert [(end.step.name, end.what) for end in (first, second)] == [
        ("two", "done"),
        ("one", "done"),
    ]


def once_more(log):
    """All jobs are done, and none twice but those that were cut off."""
    counts = [log.read_text().count(job) for job in "012345678"]
    assert set(counts) <= {1, 2} and counts.count(2) <= os.cpu_count()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells the page of the end")
@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130)])
def test_a_killed_campaign_loses_no_finished_job_and_leaves_no_page_running(project, end, code):
    project.notebook("toy", JOBS.replace("0.4", "2"), parameters=PARAMETERS)
    log = project.root / "jobs.log"
    process = begun()
    while not (log.exists() and len(log.read_text()) >= 2):
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2  # the page's process and its kernel
    process.send_signal(end)
    assert process.wait(timeout=60) == code
    assert not psutil.wait_procs(children, timeout=60)[1]
    assert len(log.read_text()) < 9  # else they have come to their own end
    (project.root / "quick").touch()
    assert begun().wait(timeout=120) == 0
    once_more(log)


def test_bad_input_is_told_before_anything_runs(three):
    past(three, "toy", 100.0)
    past(three, "one", 200.0)
    past(three, "two", 300.0)
    todo = steps(three.root, "laptop")
    with pytest.raises(
        UsageError, match="--budget 5s is shorter than the shortest page, about 100"
    ):
        campaign(todo, 5.0)
    with pytest.raises(UsageError, match="label 'A b': allowed are small letters"):
        campaign(todo, label="A b")
    with pytest.raises(UsageError, match="unknown notebook 'tow': did you mean 'two'"):
        steps(three.root, "laptop", ["tow"])
    with pytest.raises(UsageError, match="unknown parameter 'epss': did you mean 'eps'"):
        steps(three.root, "laptop", [], [("epss", "1")])
    assert not (three.root / ".companion" / "parts").exists()


def test_a_budget_is_not_held_to_the_time_of_another_profile(three):
    for name in ("toy", "one", "two"):
        past(three, name, 400.0, "paper")
    ended = campaign(steps(three.root, "laptop", ["one"]), 120.0)
    assert [end.what for end in ended] == ["done"]


def test_a_budget_in_which_no_kernel_starts_is_refused(three):
    past(three, "toy", 100.0)  # of the others no time is known
    todo = steps(three.root, "laptop")
    why = r"--budget 3s is shorter than the shortest page, about 5 s, which its kernel may need to"
    with pytest.raises(UsageError, match=why):
        campaign(todo, 3.0)
    assert not list((three.root / ".companion" / "runs").glob("*/*.ipynb"))


def test_a_label_of_other_code_is_refused_by_name(three):
    (step,) = steps(three.root, "laptop", ["one"])
    campaign([step], label="here")
    three.notebook("one", RECORD, "x = 1", parameters=PARAMETERS)
    (step,) = steps(three.root, "laptop", ["one"])
    with pytest.raises(
        UsageError, match=r"--label 'here': one-here\.json is of other code; another"
    ):
        campaign([step], label="here")
    (end,) = campaign([step], label="here", replace=True)
    assert end.what == "done" and end.files[0].name == "one-here.json"


def test_a_label_of_another_profile_or_other_parameters_is_refused_by_name(three):
    name = 'eps: float = 2e-4  # temperature\nexemplar: str = ""  # an image; path'
    three.notebook("toy", "1", parameters=name)
    (three.root / "mine.png").touch()
    at = lambda profile="laptop", **given: steps(three.root, profile, ["toy"], [*given.items()])
    outside = str(three.root / "mine.png")  # kept by its last part
    campaign(at(exemplar=outside), label="here")
    assert [end.what for end in campaign(at(exemplar=outside), label="here")] == ["was done"]
    kept = three.root / "book/archive/toy-here.json"
    text = kept.read_text()
    for todo, what in (
        (at(exemplar=outside, eps="3"), r"other parameters \(eps\)"),
        (at("smoke", exemplar=outside, eps="2e-4"), "profile laptop"),
    ):
        with pytest.raises(UsageError, match=rf"toy-here\.json is of {what}; another label, or"):
            campaign(todo, label="here")
    assert kept.read_text() == text
    campaign(at(exemplar=outside, eps="3"), label="here", replace=True)
    assert json.loads(kept.read_text())["parameters"]["eps"] == 3


def test_pages_are_named_one_by_one_or_together(three):
    process = begun("--dry-run", "--pages", "one,two")
    lines = process.communicate(timeout=60)[0].splitlines()
    assert sorted(line.split()[0] for line in lines[1:]) == ["one", "two"]


def test_a_dry_run_shows_the_order_and_runs_nothing(three):
    past(three, "two", 10.0)
    process = begun("--dry-run")
    lines = process.communicate(timeout=60)[0].splitlines()
    assert lines[1].split() == ["two", "3", "10", "s"]
    assert not list((three.root / ".companion" / "runs").glob("*/*.ipynb"))
