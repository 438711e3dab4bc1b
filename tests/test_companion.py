import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import CODE, Project
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import archive as archives
from companion import build as book
from companion import kernels, keys, section
from companion.cli import main
from companion.cluster import first_line
from companion.errors import UsageError
from companion.files import named, read_yaml
from companion.markdown import duration
from companion.notebooks import (
    Parameter,
    convert,
    load,
    names,
    of_profile,
    parse_parameters,
    resolve,
)
from companion.page.kept import archived
from companion.page.record import collect
from companion.provenance import commit
from companion.run import RunFailed, execute, finished, plan, run
from companion.start import INTERRUPTED
from otlib.assets import autoencoders, exemplars, registry, restorers

# ---- parameters


@given(st.floats(allow_nan=False))
def test_a_float_given_as_text_is_that_float(value):
    assert convert(Parameter("x", "float", 0.0, ""), repr(value)) == value


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_int_passes_as_int_and_as_float(value):
    assert convert(Parameter("x", "int", 0, ""), str(value)) == value
    small = value % 2**50
    assert convert(Parameter("x", "float", 0.0, ""), small) == small


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", "1e-3", 0.001),
        ("float", "inf", float("inf")),
        ("float", 2, 2.0),
        ("int", "-3", -3),
        ("bool", "True", True),
        ("bool", "false", False),
        ("str", "3", "3"),
        ("list", "[1, 'a']", [1, "a"]),
    ],
)
def test_values_take_the_declared_type(kind, value, expected):
    found = convert(Parameter("x", kind, None, ""), value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "3.5"),
        ("int", 3.0),
        ("int", True),
        ("float", "small"),
        ("float", "nan"),
        ("float", True),
        ("bool", "1"),
        ("bool", 1),
        ("str", 3),
        ("list", "1, 2]"),
        ("list", "3"),
        ("list", {"a": 1}),
    ],
)
def test_values_of_another_type_are_refused(kind, value):
    with pytest.raises(ValueError, match=r".+"):
        convert(Parameter("x", kind, None, ""), value)


def test_a_parameters_cell_says_name_type_default_and_meaning():
    found = parse_parameters("a: float = 2  # g = f, eq. (5)\nb: list[int] = [1,\n  2]  # two", "n")
    assert found["a"] == Parameter("a", "float", 2.0, "g = f, eq. (5)")
    assert found["b"] == Parameter("b", "list", [1, 2], "two")


@pytest.mark.parametrize(
    "line",
    ["a = 1", "a: int", "a: int = f(2)", "a: dict = {}", "a: int = 0.5", "import os", "a: ="],
)
def test_any_other_line_in_a_parameters_cell_is_refused(line):
    with pytest.raises(UsageError, match="notebook 'n', parameters cell"):
        parse_parameters(line, "n")


def test_defaults_then_profile_then_override(project):
    toy = load(project.root, "toy")
    assert resolve(project.root, toy)["eps"] == 2e-4
    assert resolve(project.root, toy, "smoke")["eps"] == 1e-3  # YAML reads 1e-3 as a text
    assert resolve(project.root, toy, "smoke", [("eps", "1"), ("eps", "2")])["eps"] == 2.0


# ---- the command line


def command(capsys, *arguments):
    """Run the command; return its exit code and the lines of stdout and of stderr."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return caught.value.code, out.splitlines(), err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tov"], "unknown notebook 'tov': did you mean 'toy'?"),
        (["run", "toy", "-p", "sed", "1"], "unknown parameter of toy 'sed': did you mean 'seed'?"),
        (["run", "toy", "-p", "seed", "1.5"], "parameter 'seed' of toy: '1.5', expected int"),
        (["run", "toy", "-p", "fast", "x"], "'fast' of toy: 'x', expected true or false"),
        (["run", "toy", "--profile", "smok"], "unknown profile 'smok': did you mean 'smoke'?"),
        (["run", "toy", "-p", "seed"], "requires 2 arguments"),
        (["run", "toy", "--out", "book/claims/one2020.yml"], "'book/claims/one2020.yml' is a file"),
        (["run"], "NOTEBOOK"),
        (["rum", "toy"], "No such command 'rum'"),
        (["build", "--profile", "smok"], "did you mean 'smoke'?"),
        (["build", "--device", "gpu"], "--device 'gpu': allowed are cpu, cuda and cuda:N"),
        (["archive", "toy.json", "gpu"], "toy.json is missing"),
        (["archive", "book/claims/one2020.yml", "gpu"], "is damaged: not JSON, or cut off"),
        (["archive", "book", "gpu"], "book is a folder, needs the NAME.json"),
        (["archive", "toy.json", "A/B"], "label 'A/B': allowed are small letters"),
        (["check"], "not run yet with the present sources: toy; first: companion build"),
    ],
)
def test_wrong_use_is_one_line_and_runs_nothing(project, capsys, arguments, message):
    code, out, err = command(capsys, *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not (project.root / ".companion").exists()


def test_a_notebook_without_parameters_cell_is_named(project, capsys):
    text = (project.root / "notebooks/toy.md").read_text()
    project.write("notebooks/toy.md", text.replace("[parameters]", "[other]"))
    code, _, err = command(capsys, "run", "toy")
    assert (code, len(err)) == (2, 1)
    assert "notebook 'toy': 0 cells are tagged `parameters`" in err[0]


def test_list_shows_what_can_be_set(project, capsys):
    code, out, _ = command(capsys, "list")
    assert code == 0
    assert out[0] == "toy: A toy page (one2020, II, Fig. 1)"
    assert "  eps: float = 0.0002  # temperature" in out
    assert out[-1] == "profiles: smoke, laptop"


def test_run_writes_notebook_and_json_and_is_reproducible(project, capsys):
    arguments = ("run", "toy", "--profile", "smoke", "-p", "seed", "-3", "--out", "out")
    code, out, _ = command(capsys, *arguments)
    assert (code, out) == (0, ["out/toy.ipynb", "out/toy.json"])
    first = json.loads((project.root / "out/toy.json").read_text())
    assert first["parameters"]["seed"] == -3
    assert first["parameters"]["rho"] == "inf"
    assert first["records"]["eps"] == {"value": 1e-3, "unit": "", "better": ""}
    assert first["records"]["rho_is_infinite"]["value"] is True
    facts = first["provenance"]
    assert facts["seed"] == -3
    assert facts["commit"] is None  # the temporary folder is no checkout
    assert facts["peak_memory_mib"] > 10
    assert facts["versions"]["torch"]
    text = (project.root / "out/toy.ipynb").read_text()
    assert str(project.root) not in text
    assert nbformat.reads(text, 4).metadata.companion.key == first["key"]

    _, _, err = command(capsys, *arguments)  # reused
    assert err == ["toy: already run, reused"]
    assert json.loads((project.root / "out/toy.json").read_text()) == first

    shutil.rmtree(project.root / ".companion")
    command(capsys, *arguments)  # run again
    again = json.loads((project.root / "out/toy.json").read_text())
    assert again["records"] == first["records"]
    assert again["key"] == first["key"]


def test_the_box_shows_the_data_and_weights_that_a_run_opened(project):
    def box():
        return section.provenance_box(json.loads((run("toy") / "toy.json").read_text()))

    assert "Data and weights" not in box()
    asset = {"name": "cells", "source": "folder mine", "sha256": "ab" * 32, "licence": "BSD"}
    stand_in = f"types.SimpleNamespace(used=lambda: [{asset}])"
    project.notebook("toy", f"import sys, types\nsys.modules['otlib.assets.used'] = {stand_in}")
    assert "| Data and weights | cells from folder mine (SHA-256 abababababab, licence: BSD) |" in (
        box()
    )


def test_provenance_names_the_commit_and_whether_the_tree_is_dirty(project):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=project.root, check=True, capture_output=True)

    git("init")
    assert commit(project.root) == {"commit": None, "dirty": None}  # no commit yet
    git("add", ".")
    git("commit", "--message", "first")
    clean = commit(project.root)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    project.notebook("toy", "x = 1")
    assert commit(project.root) == {**clean, "dirty": True}
    assert commit(project.root / "book") == {"commit": None, "dirty": None}  # not its top


# ---- runs that fail or were cut off

FAILING = "```{code-cell} ipython3\n:name: division\nx = 1\n1 / 0\n```\n"


def test_a_failing_cell_keeps_its_notebook_and_leaves_no_json(project, capsys):
    project.notebook("toy", "x = 0", FAILING, "x = 2")
    project.write("out/toy.json", "{}")  # of an earlier run
    code, out, err = command(capsys, "run", "toy", "--out", "out")
    assert (code, out) == (1, [])
    assert "cell 4 `division` failed: ZeroDivisionError: division by zero" in "\n".join(err)
    assert err[-1] == "notebook kept at out/toy.ipynb"
    assert "ZeroDivisionError" in (project.root / "out/toy.ipynb").read_text()
    assert not (project.root / "out/toy.json").exists()
    assert list((project.root / ".companion/runs").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise SystemExit(0)",
            "`raise SystemExit.0.` failed: the notebook stopped before its last cell",
        ),
        ("import os; os._exit(1)", "`import os; os._exit.1.` failed: the kernel died"),
        (
            "import companion.page.record as r\nr.record('x', 1); r.record('x', 2)",
            "'x' is made twice",
        ),
    ],
)
def test_a_run_without_an_end_is_a_failure(project, code, message):
    project.notebook("toy", code, "y = 1")
    with pytest.raises(RunFailed, match=message):
        run("toy")
    assert finished(plan("toy")) is None
    assert (project.root / ".companion/failed/toy.ipynb").is_file()


def test_an_autoencoder_that_cannot_be_had_is_refused_before_any_work(project, monkeypatch):
    def unreachable(name, asset):
        raise registry.Unreachable(f"{name} on the hub cannot be had")

    monkeypatch.setattr(registry, "_downloaded", unreachable)
    monkeypatch.setattr(autoencoders, "_fallen", set())
    monkeypatch.delenv("OTLIB_TAESD", raising=False)
    made = project.root / "made"
    given = "autoencoder: str = 'taesd'  # a"
    project.notebook("toy", f"open({str(made)!r}, 'w')", parameters=given)
    told = "toy: autoencoder='taesd' cannot be had"
    with pytest.raises(UsageError, match=f"{told}: taesd.* on the hub cannot be had$"):
        run("toy")
    with pytest.raises(UsageError, match=told):
        book.run_all([plan("toy")])
    assert not made.exists()
    run("toy", {"autoencoder": "pca16"})
    assert made.exists()


@pytest.mark.parametrize("damaged", ["toy.json", "toy.ipynb"])
def test_a_damaged_run_is_done_again(project, damaged):
    folder = run("toy")
    whole = (folder / "toy.json").read_text()
    assert finished(plan("toy")) == json.loads(whole)
    text = (folder / damaged).read_text()
    (folder / damaged).write_text(text[: len(text) // 2])
    assert finished(plan("toy")) is None
    assert run("toy") == folder
    assert finished(plan("toy"))["records"] == json.loads(whole)["records"]


@pytest.mark.parametrize("left", ["file", "folder"])
def test_what_lies_in_a_run_s_place_does_not_stop_it(project, left):
    folder = plan("toy").folder
    if left == "folder":
        (folder / "toy.json").mkdir(parents=True)
    else:
        folder.parent.mkdir(parents=True)
        folder.write_text("junk")
    assert finished(plan("toy")) is None
    assert run("toy") == folder
    assert finished(plan("toy")) is not None


DATED = b'{"profile": "laptop", "provenance": {"date": "2026-01-01", "wall_seconds": 90}}'


@pytest.mark.parametrize(
    ("data", "about"),
    [
        *((data, "time left not known") for data in (b"", b"[]", b"{}", b"\xff")),
        (b'{"provenance": 3}', "time left not known"),
        (DATED.replace(b"laptop", b"smoke"), "time left not known"),
        (DATED, f"about {duration(90)} left"),
    ],
)
def test_a_damaged_past_run_tells_no_time(project, monkeypatch, capsys, data, about):
    past = project.root / ".companion/runs/toy-0/toy.json"
    past.parent.mkdir(parents=True)
    past.write_bytes(data)
    monkeypatch.setattr(book, "execute", lambda *_: {})
    assert book.run_all([plan("toy")]) == {"toy": {}}
    assert capsys.readouterr().err == f"[1/1] toy: running, {about} for the notebooks\n"


def test_a_damaged_stamp_of_the_book_builds_it_again(project, monkeypatch, capsys):
    def build():
        """Whether the pages are built, or what is there is kept."""
        calls.clear()
        assert book.sphinx(project.root) == project.root / "book/_build/html/index.html"
        assert ("pages: nothing changed" in capsys.readouterr().err) == (not calls)
        return bool(calls)

    calls, done = [], subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(book.subprocess, "run", lambda *_, **__: calls.append(1) or done)
    project.write("book/_build/html/index.html", "")
    assert build() and not build()
    (project.root / ".companion/book.sha256").write_bytes(b"\xff")
    assert build() and not build()
    project.write("book/index.md", "# T")
    assert build() and not build()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"records": 3}', '{"provenance": {}}'])
def test_a_damaged_file_of_the_archive_is_named(project, text):
    project.write("book/archive/toy-a.json", text)
    with pytest.raises(UsageError, match=r"toy-a\.json is no run kept, or damaged"):
        archived("book/archive/*.json")


def test_a_plan_is_not_run_with_other_code(project):
    project.notebook("toy", "import otlib.softmin")
    project.write("otlib/softmin.py", "x = 1")
    todo = plan("toy")
    project.write("otlib/softmin.py", "x = 2")
    with pytest.raises(RunFailed, match="code changed since the start"):
        execute(todo, project.root, "toy")
    assert not todo.folder.parent.exists()


def test_an_interrupted_run_leaves_nothing_that_reads_as_whole(project, monkeypatch):
    import papermill

    def interrupted(source, *_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(papermill, "execute_notebook", interrupted)
    killed = project.root / ".companion/runs/.toy-0123456789abcdef-x"  # nobody runs it
    killed.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        run("toy")
    assert list((project.root / ".companion/runs").iterdir()) == []


TENSORS = """
import resource
import torch
from companion.page.record import record
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for count in (50, 200):
    before = faults()
    for _ in range(count):
        torch.ones(500_000)
record("pages", (faults() - before) / count)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
def test_a_kernel_under_dask_keeps_the_memory_of_its_tensors(project, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")  # as Dask's workers have it
    kernels._server.cache_clear()
    project.notebook("toy", TENSORS)
    run("toy", root=project.root)
    result = finished(plan("toy"))
    assert result and result["records"]["pages"]["value"] < 50  # of the 488 that a tensor covers


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_kernel_that_dies_before_it_begins_is_started_again(project, monkeypatch, deaths):
    fork, born = kernels._fork, []

    def dying(request):
        born.append(fork(request))
        if len(born) <= deaths:
            os.kill(born[-1], signal.SIGKILL)
        return born[-1]

    monkeypatch.setattr(kernels, "_fork", dying)
    project.notebook("toy", "x = 1")
    if deaths == 1:
        run("toy")
        assert len(born) == 2
    else:
        with pytest.raises(RunFailed, match="notebook 'toy': its kernel died 3 times before"):
            run("toy")


def test_a_run_takes_up_the_jobs_that_an_interrupted_one_had_done(project, capsys):
    jobs = """
from pathlib import Path
from companion.page.jobs import side_by_side
log = Path("jobs.log")
def work(job):
    log.open("a").write(str(job))
    return job
done = side_by_side(work, [1, 2, 3], "jobs")
if not Path("mended").exists():
    import os
    os._exit(9)
"""
    project.notebook("toy", jobs)
    with pytest.raises(RunFailed, match="the kernel died"):
        run("toy")
    assert sorted((project.root / "jobs.log").read_text()) == ["1", "2", "3"]
    (project.root / "mended").touch()
    folder = run("toy")
    assert len((project.root / "jobs.log").read_text()) == 3
    facts = json.loads((folder / "toy.json").read_text())["provenance"]
    assert facts["resumed_jobs"] == 3
    assert not plan("toy").parts.exists()


def test_an_archived_run_tells_its_device_and_when_otlib_changed(project, capsys, tmp_path):
    project.notebook("toy", "from companion.page.record import record\nrecord('x', 1.5)")
    data = tmp_path / "data"
    data.mkdir()
    command(capsys, "run", "toy", "-p", "label", str(data), "--out", "out")
    code, out, _ = command(capsys, "archive", "out/toy.json", "full-size")
    assert (code, out) == (0, [str(project.root / "book/archive/toy-full-size.json")])
    kept = (project.root / "book/archive/toy-full-size.json").read_text()
    assert str(tmp_path) not in kept
    assert json.loads(kept)["records"]["x"]["value"] == 1.5
    ((title, result),) = archived("book/archive/toy-*.json").items()
    facts = result["provenance"]
    assert title == f"full-size, laptop, {facts['device']}, {facts['date'][:10]}"
    assert not result["changed"]
    changed = json.loads(kept)
    changed["provenance"]["code"]["notebooks/toy.md"] = "0"
    project.write("book/archive/toy-full-size.json", json.dumps(changed))
    ((stale, result),) = archived("book/archive/*.json").items()
    assert stale == f"{title}, changed since: notebooks/toy.md"
    assert result["changed"] == ["notebooks/toy.md"]


# ---- the book and its claims


@pytest.fixture
def no_sphinx(monkeypatch):
    """Count the calls of Sphinx instead of making them."""
    calls = []
    monkeypatch.setattr(book, "sphinx", lambda root: calls.append(root) or root / "index.html")
    return calls


def test_no_book_is_built_from_a_failed_notebook(project, capsys, no_sphinx):
    project.notebook("zzz", FAILING)
    code, out, err = command(capsys, "build")
    assert (code, out, no_sphinx) == (1, [], [])
    assert "`division` failed" in "\n".join(err)
    assert not (project.root / "book/sections").exists()


def test_the_offered_notebook_leaves_its_large_pictures_to_the_page(project, capsys, no_sphinx):
    shown = "from IPython.display import display\ndisplay({'image/png': 'A' * %d}, raw=True)"
    project.notebook("toy", CODE, shown % 120_000, shown % 40)
    assert command(capsys, "build")[0] == 0
    sections = project.root / "book/sections"
    offered = nbformat.read(sections / "files/toy.ipynb", 4)
    large, small = (cell.outputs[0].data for cell in offered.cells if "display({" in cell.source)
    assert large == {"text/plain": "a picture, to be seen on the page of the book"}
    assert small == {"image/png": "A" * 40}
    page = nbformat.read(sections / "toy.ipynb", 4)
    assert sum("A" * 120_000 in str(cell.get("outputs")) for cell in page.cells) == 1
    assert collect(offered) == collect(page)


def test_build_writes_the_pages_and_check_judges_them(project, capsys, no_sphinx):
    why = {"explanation": "eps is larger", "cause": "not known"}
    project.claims(
        {},
        {"id": "wrong", "at_most": 1e-9, "status": "differs", **why},
        {"id": "now-right", "status": "differs", **why},
        {"id": "elsewhere", "profiles": ["smoke"]},
    )
    code, _, _ = command(capsys, "build")
    assert (code, len(no_sphinx)) == (0, 1)
    sections = project.root / "book/sections"
    page = nbformat.read(sections / "toy.ipynb", 4)
    # the anchors of claims stand before the cell that records them; what none does, at the end
    kinds = ["markdown", "code", "markdown", "markdown", "code", *["markdown"] * 3]
    assert [c.cell_type for c in page.cells] == kinds
    assert "companion run toy --profile laptop --out out" in page.cells[2].source
    assert "| `eps` | `0.0002` | temperature |" in page.cells[2].source
    assert re.findall('id="(.*?)"', page.cells[3].source) == [
        *["claim-toy-eps", "claim-wrong", "claim-now-right", "claim-elsewhere"]
    ]
    assert "| Verdict | Published | C: this run |\n" in page.cells[5].source
    assert (
        '| Fig. 1: ε is small | <a href="scoreboard.html#claim-toy-eps">✔ reproduced</a> '
        "| at most .01 | ✔ 0.0002 |" in page.cells[5].source
    )
    assert "Provenance of this run" in page.cells[6].source
    assert "@misc{companion,\n  author = {{The authors}}" in page.cells[7].source
    assert (sections / "files/toy.md").read_text() == (
        project.root / "notebooks/toy.md"
    ).read_text()
    assert "toy-eps" not in (sections / "summary.md").read_text()
    assert "✘</span> differs</span> | 1 | – | – |" in (sections / "summary.md").read_text()
    assert "ε is larger" in (sections / "scoreboard.md").read_text()
    assert len(json.loads((sections / "files/claims.json").read_text())) == 4

    code, out, _ = command(capsys, "check")
    assert code == 0
    assert [line.split()[0] for line in out[1:]] == ["toy-eps", "wrong", "now-right", "elsewhere"]
    assert out[3].endswith("marked differs, holds in this run")
    assert "not run" in out[4]

    times = {path: path.stat().st_mtime_ns for path in sections.rglob("*") if path.is_file()}
    code, _, err = command(capsys, "build")
    assert (code, err[0]) == (0, "[1/1] toy: already run, reused")
    assert times == {path: path.stat().st_mtime_ns for path in times}

    project.claims({"at_most": 1e-9}, {"id": "gone", "record": "nothing"})
    code, out, _ = command(capsys, "check")
    assert code == 1
    assert all("marked reproduced, does not hold in this run" in line for line in out[1:])
    assert "no record `nothing`" in out[2]
    book.build()
    page = nbformat.read(sections / "toy.ipynb", 4)
    anchors = [c.source for c in page.cells if c.id.startswith("companion-claims")]
    assert [re.findall('id="(.*?)"', text) for text in anchors] == [
        ["claim-toy-eps"],
        ["claim-gone"],
    ]


def test_the_device_goes_to_notebooks_that_have_one(project):
    project.notebook("with_device", "x = 1", parameters='device: str = "cpu"')
    plans = book.plans_of_book(project.root, "laptop", [("device", "cuda")])
    assert [todo.parameters.get("device") for todo in plans] == [None, "cuda"]
    assert "-p device cuda --out out" in section.rerun_box(plans[1])


def test_a_profile_may_leave_a_value_to_the_user(project, capsys):
    project.write("notebooks/profiles.yml", "{laptop: {}, paper: {toy: {label: null, eps: 1e-4}}}")
    code, _, err = command(capsys, "build", "--profile", "paper")
    assert code == 2
    assert err == [
        "companion: profile 'paper' of toy leaves to you: label, ; give -p label VALUE",
    ]
    assert plan("toy").parameters["label"] == "a"
    code, _, _ = command(capsys, "run", "toy", "--profile", "paper", "-p", "label", "b")
    assert code == 0
    (todo,) = book.plans_of_book(project.root, "paper", [("label", "b")])
    assert (todo.parameters["label"], todo.parameters["eps"]) == ("b", 1e-4) and finished(todo)
    project.claims({"profiles": ["paper"]})
    code, out, err = command(capsys, "check", "--profile", "paper", "-p", "label", "b")
    assert code == 0 and "reproduced" in out[1]
    code, _, err = command(capsys, "check", str(todo.folder))
    assert code == 0 and err == []


def test_an_override_that_no_notebook_has_is_named(project):
    with pytest.raises(UsageError, match="unknown parameter 'lable': did you mean 'label'"):
        book.plans_of_book(project.root, "laptop", [("lable", "b")])


def test_the_page_shows_what_a_command_prints_as_one_text_without_progress_bars(project):
    def piece(name, text):
        return nbformat.v4.new_output("stream", name=name, text=text)

    def shown(*outputs):
        """What the page shows of a cell's outputs."""
        executed = nbformat.read(file, 4)
        (cell,) = (cell for cell in executed.cells if cell.source == "x = 1")
        cell.outputs = list(outputs)
        nbformat.write(executed, file)
        section.write_section(project.root, plan("toy"), result, [], [])
        page = nbformat.read(project.root / "toy.ipynb", 4)
        (cell,) = (cell for cell in page.cells if cell.source == "x = 1")
        return [output.get("text") for output in cell.outputs]

    project.notebook("toy", "x = 1")
    file = run("toy") / "toy.ipynb"
    result = finished(plan("toy"))
    bar = "\r 0%\r100%\n"
    assert shown(piece("stderr", f"{bar}A warning\n")) == ["A warning\n"]
    assert shown(piece("stderr", bar)) == []
    assert shown(piece("stderr", "\r 0%"), piece("stderr", "\r100%\nA warning")) == ["A warning"]
    # the pieces of a stream end anywhere in a line, and another's come between
    pieces = [piece("stdout", "a b"), piece("stderr", "10%"), piece("stdout", " c\n")]
    picture = nbformat.v4.new_output("display_data", data={})
    found = shown(*pieces, picture, piece("stdout", "d\n"))
    assert found == ["a b c\n", "10%", None, "d\n"]


def test_the_picture_of_the_cover_cell_goes_to_the_title_page(project, no_sphinx):
    picture = "IPython.display.Image(data=b'a picture', format='png')"
    code = f"import IPython.display\n{picture}"
    project.notebook("toy", f"```{{code-cell}} ipython3\n:tags: [cover]\n{code}\n```\n")
    project.claims({"profiles": ["smoke"]})
    book.build()
    assert (project.root / "book/sections/cover.png").read_bytes() == b"a picture"


def test_the_lead_of_a_page_is_a_picture_for_its_card(project, no_sphinx):
    from PIL import Image

    draw = "figures.images({'a': np.full((40, 40), 0.8)}, columns=1)"
    told = "mystnb: {figure: {name: fig-a, caption: A figure.}, image: {alt: grey}}"
    imports = "import numpy as np\nfrom companion.page import figures"
    code = f"---\ntags: [lead]\n{told}\n---\n{imports}\n{draw}"
    answer = ":::{admonition} Answer\n:class: answer\nIt holds.\n:::"
    project.notebook("toy", f"```{{code-cell}} ipython3\n{code}\n```\n")
    path = project.root / "notebooks/toy.md"
    first, rest = path.read_text().split("```{code-cell}", 1)
    path.write_text(f"{first}\n{answer}\n\n```{{code-cell}}{rest}")
    project.claims({"profiles": ["smoke"]})
    book.build()
    with Image.open(project.root / "book/sections/small/toy.webp") as small:
        assert small.width == 640 and small.convert("L").getpixel((320, 200)) in range(202, 207)
    for path in ("sections/toy.ipynb", "sections/files/toy.ipynb"):
        assert "companion.card" not in (project.root / "book" / path).read_text()


CONFIG = """\
title: T
author: A
execute: {execute_notebooks: "off"}
only_build_toc_files: true
bibtex_bibfiles: [references.bib]
"""
TOC = """\
format: jb-book
root: index
chapters: [{file: sections/toy}, {file: sections/scoreboard}, {file: about}]
"""
INDEX = """\
# T
```{include} sections/summary.md
```
{glue:text}`sections/toy.ipynb::eps:.4f`
```{bibliography}
```
"""


def test_the_pages_pass_the_strict_build_once_and_a_bad_one_does_not(project, capsys):
    project.write("_config.yml", CONFIG)
    project.write("book/_toc.yml", TOC)
    project.write("book/index.md", INDEX)
    project.write("book/about.md", "# About")
    box = '{"image/svg+xml": "<svg xmlns=\'http://www.w3.org/2000/svg\'></svg>"}'
    project.notebook("toy", CODE, f"from IPython.display import display\ndisplay({box}, raw=True)")
    archives.archive(project.root, run("toy") / "toy.json", "kept")
    code, out, err = command(capsys, "build")
    assert (code, out) == (0, [str(project.root / "book/_build/html/index.html")]), err
    images = [path.suffix for path in (project.root / "book/_build/html/_images").iterdir()]
    assert images == [".svg", ".svg"]  # the page's and the one kept
    assert "0.0002" in (project.root / "book/_build/html/index.html").read_text()
    assert "0.0002" in (project.root / "book/_build/html/sections/scoreboard.html").read_text()
    _, _, err = command(capsys, "build")
    assert err[-1] == "pages: nothing changed"

    project.write("book/index.md", INDEX + "{doc}`nowhere`\n")
    for _ in range(2):  # the second build must not forget the warning
        code, out, err = command(capsys, "build")
        assert (code, out) == (1, [])
        assert "nowhere" in "\n".join(err)


# ---- what the parameters' comments allow


def parameters(*lines):
    return parse_parameters("\n".join(lines), "toy")


@pytest.mark.parametrize(
    ("line", "good", "bad"),
    [
        ("x: float = 1.0  # size; > 0", ["1e-9", "inf"], ["0", "-1", "nan", "x", "1e-400"]),
        ("x: float = 1.0  # size", ["-1", "-inf"], ["1e400", "-1e400", ""]),
        ("x: int = 1  # size; >= 1", ["1", str(2**63 - 1)], ["0", "1.5", "True", str(2**63)]),
        ("x: float = 0.5  # share; 0 to 1", ["0", "1"], ["1.1", "-0.1"]),
        ("x: list = [1.0]  # y; > 0", ["[2]", "[1, 2.5]"], ["[None]", "[{}]", "[(1, 2)]"]),
        ("x: list = [1.0]  # y; > 0", ["[1e300]"], ["[1j]", "['x']", "[True]", "[[1.0]]", "[0]"]),
        ("x: list = [1.0]  # y", ["[inf, -inf]"], ["[]", "[nan]", "[1e400]", "[-1e400]"]),
        ("x: list = [1]  # y", ["[-2]"], ["[1.5]", "['1']", "[1, None]", "1", "(1,)"]),
        ("x: list = [[1, 2]]  # y; >= 1", ["[[3, 4], [5]]"], ["[1]", "[[0]]", "[[1.5]]"]),
        ("x: list = ['a']  # y; one of a, b", ["['b', 'a']"], ["['c']", "[1]"]),
        ("x: list = []  # y", ["[1, 'a', 2.5]", "[]"], ["[None]", "[{}]"]),
        ("x: str = 'cpu'  # y; one of cpu, cuda, cuda:N", ["cuda:3"], ["gpu", "", "cuda:x"]),
        ("x: str = 'a'  # y; one of a or a path", ["a", "b.png"], []),
        ("x: str = 'a'  # y; 'a': that one", ["c"], ["\0", "\udcff"]),  # prose
        ("x: list = ['a']  # y;\n# one of a,\n# b", ["['b']"], ["['c']"]),  # on three lines
        ("x: list = [1.0, float('inf')]  # y; > 0", ["[inf, 2]"], ["[-inf]", "[nan]"]),
    ],
)
def test_what_a_comment_allows(line, good, bad):
    (parameter,) = parameters(line).values()
    for text in good:
        convert(parameter, text)
    for text in bad:
        with pytest.raises(ValueError, match=r"^expected [^\n]+$"):
            convert(parameter, text)


@pytest.mark.parametrize("ending", ["< 5", ">", ">= x", "1 to", "0 to b", "one of", "path or so"])
def test_an_ending_that_tells_nothing_is_a_mistake(ending):
    with pytest.raises(UsageError, match="does not tell what is allowed"):
        parameters(f"x: int = 1  # size; {ending}")


@pytest.mark.parametrize(
    "line",
    [
        "x: int = 1  # y; one of 1, 2",
        "x: str = 'a'  # y; > 0",
        "x: list = ['a']  # y; 0 to 1",
        "x: float = 1.0  # y; path",
        "x: bool = True  # y; path",
        "x: list = [1]  # y; one of 1",
    ],
)
def test_an_ending_for_another_type_is_a_mistake(line):
    with pytest.raises(UsageError, match="is not for it"):
        parameters(line)


@pytest.mark.parametrize(
    ("line", "text", "hint"),
    [
        ("x: str = 'cpu'  # y; one of cpu, cuda, cuda:N", "cuda1", "; did you mean 'cuda'?"),
        ("x: list = ['grass']  # y; one of brick, grass", "['gras']", "; did you mean 'grass'?"),
        ("x: str = 'a'  # y; one of a, b", "zzz", "one of a, b"),
    ],
)
def test_the_nearest_choice_is_named(line, text, hint):
    (parameter,) = parameters(line).values()
    with pytest.raises(ValueError, match="expected") as caught:
        convert(parameter, text)
    assert str(caught.value).endswith(hint)


def test_the_choices_of_the_pages_are_those_there_are():
    with pytest.raises(ValueError, match="name must be one of ") as caught:
        autoencoders.load("none")
    words = str(caught.value).partition("one of ")[2].partition(", got")[0]
    known = {"restorers": restorers.RESTORERS, "shown": restorers.RESTORERS}
    known |= {"autoencoder": words.split(", "), "exemplar": exemplars.CARRIED}
    root, told = Path(__file__).parents[1], 0
    for name in names(root):
        for parameter in load(root, name).parameters.values():
            if parameter.name in known and "; one of " in parameter.meaning:
                choices = parameter.meaning.rpartition("; one of ")[2]
                choices = choices.removesuffix(" or a path").split(", ")
                assert set(choices) == {*known[parameter.name]}, name
                told += 1
    assert told == 12


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_every_page_can_be_planned(profile):
    root = Path(__file__).parents[1]
    for page in (load(root, name) for name in names(root)):
        left = [name for name, value in of_profile(root, page, profile).items() if value is None]
        assert left == [] or (profile, left) == ("paper", ["images"])
        resolve(root, page, profile, dict.fromkeys(left, "embedded"))
    assert len(names(root)) == 17


def test_a_number_for_a_list_of_numbers_is_that_number():
    (parameter,) = parameters("x: list = [1.0]").values()
    assert repr(convert(parameter, "[2, 3]")) == "[2.0, 3.0]"


@pytest.mark.parametrize(
    ("ending", "value", "message"),
    [
        ("path", "none.png", "'none.png', expected a file or folder, which is neither here nor in"),
        ("one of a, b or a path", "c", "'c', expected one of a, b or a file or folder"),
    ],
)
def test_a_path_that_is_not_there_is_told_before_any_work(project, ending, value, message):
    project.notebook("toy", parameters=f"source: str = 'a'  # y; {ending}")
    with pytest.raises(UsageError, match=message):
        plan("toy", {"source": value})
    project.write(value, "x")
    assert plan("toy", {"source": value}).parameters["source"] == value


def test_a_pattern_in_a_folder_of_any_name(project, monkeypatch):
    project.notebook("toy", parameters="source: str = ''  # y; path")
    (project.root / "a[1]").mkdir()
    project.write("a[1]/x.png", "x")
    monkeypatch.chdir(project.root / "a[1]")
    given = plan("toy", {"source": "*.png"}).parameters["source"]
    assert named(given, project.root) == [project.root / "a[1]" / "x.png"]
    assert plan("toy", {"source": "x.png"}).parameters["source"] == str(Path.cwd() / "x.png")


def test_a_folder_to_write_is_the_user_s(project, monkeypatch):
    project.notebook("toy", parameters="save: str = ''  # y; path to write")
    (project.root / "sub").mkdir()
    monkeypatch.chdir(project.root / "sub")
    assert plan("toy", {"save": "out"}).parameters["save"] == str(project.root / "sub/out")
    assert plan("toy", {"save": ""}).parameters["save"] == ""


def test_a_run_is_done_again_where_what_it_wrote_is_gone_and_only_there(project):
    parameters = "save: str = ''  # y; path to write"
    made = "from pathlib import Path\nPath(save).write_text(str(save))"
    project.notebook("toy", made, parameters=parameters)
    path = project.root / "made.txt"
    given = {"save": str(path)}
    run("toy", given, root=project.root)
    todo = plan("toy", given)
    assert finished(todo) is not None  # the file that is there now is no other input
    path.unlink()
    assert plan("toy", given).key == todo.key and finished(todo) is None
    run("toy", given, root=project.root)
    assert path.exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("book/claims/one2020.yml", "- 3", "must have a list of claims under the key 'claims'"),
        ("book/claims/one2020.yml", "claims", "must have a list of claims under the key 'claims'"),
        ("book/claims/one2020.yml", "", "must have a list of claims under the key 'claims'"),
        ("book/claims/one2020.yml", "claims: {a: 1}", "must have a list of claims under the key"),
        ("book/claims/one2020.yml", "claims: [3]", "book/claims/one2020.yml, claim '3'"),
        ("book/claims/one2020.yml", "claims: [{id: a, id: b}]", "the key 'id' stands twice"),
        ("book/claims/one2020.yml", "{claims: [], evidence: {tou: []}}", "did you mean 'toy'"),
        ("book/claims/one2020.yml", "{claims: [], cells: 3}", "one2020.yml: cells"),
        (
            "book/claims/one2020.yml",
            "{claims: [], headlines: [{claim: toy, says: x}]}",
            "claim in headlines of one2020",
        ),
        ("notebooks/profiles.yml", "[laptop]", "profiles.yml must be a mapping of names"),
        ("notebooks/profiles.yml", "", "profiles.yml must be a mapping of names, got nothing"),
        ("notebooks/profiles.yml", "[]", "profiles.yml must be a mapping of names, got []"),
        ("notebooks/profiles.yml", "{laptop: {}, 5: {}}", "profiles.yml: 5 is no name"),
        ("notebooks/profiles.yml", "{laptop: {5: {}}}", "profile 'laptop': 5 is no name"),
        ("notebooks/profiles.yml", "{laptop: {toy: {5: 1}}}", "notebook 'toy': 5 is no name"),
        ("notebooks/profiles.yml", "{laptop: {toy: {seed: 1:30}}}", "'1:30', expected int"),
        ("notebooks/toy.md", "---\n[\n---\n", "notebook 'toy': while parsing a flow node"),
        ("notebooks/toy.md", b"\xff", "notebook 'toy': 'utf-8' codec can't decode"),
        (
            "notebooks/toy.md",
            "```{code-cell}\n:tags: [a\n```",
            "at line 1 could not be read: Invalid",
        ),
        ("notebooks/toy.md", "---\ncompanion: 5\n---\n", "`companion` must be a mapping, got 5"),
        ("otlib/__init__.py", "import (", "otlib/__init__.py, line 1: invalid syntax"),
        ("notebooks/profiles.yml", "laptop: 3", "profile 'laptop' must be a mapping of names"),
        ("notebooks/profiles.yml", "laptop: {toy: 3}", "notebook 'toy' must be a mapping of names"),
        ("notebooks/profiles.yml", "{laptop: {}, laptop: {}}", "the key 'laptop' stands twice"),
        ("notebooks/profiles.yml", b"\xff", "is no UTF-8 text"),
    ],
)
def test_a_file_of_another_form_is_told_in_one_line(project, capsys, file, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    project.notebook("toy", "import otlib")
    (project.root / file).write_bytes(data)
    code, _, err = command(capsys, "check")
    assert (code, len(err)) == (2, 1)
    assert message in err[0]


def test_a_cell_that_is_no_python_is_told_before_any_work(project, capsys):
    project.notebook("toy", "x = 1", "import (random")
    code, _, err = command(capsys, "run", "toy")
    assert (code, err) == (2, ["companion: notebook 'toy': invalid syntax: 'import (random'"])
    project.notebook("toy", "import glob\nfound = !ls\nglob?\n%time x = 1")  # IPython's is fine
    assert plan("toy").key


@pytest.mark.parametrize("text", ["@misc{", "@misc{a, title={A}}\n@misc{a, title={B}}"])
def test_titles_that_cannot_be_read_are_told_in_one_line(project, capsys, text):
    project.write("book/references.bib", text)
    code, _, err = command(capsys, "build")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("companion: book/references.bib: ")


@settings(max_examples=60)
@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.text("01:_.e-x", max_size=6)))
def test_yaml_numbers_are_those_written_in_decimals(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("yaml") / "x.yml"
    path.write_text(json.dumps([value]) if isinstance(value, str) else yaml.safe_dump([value]))
    assert read_yaml(path, "x") == [value]
    path.write_text("[1:30, 010, 1_0, 0x1, 1e-3, -5, .inf, 1e5]")
    numbers = [1e-3, -5, float("inf"), 1e5]
    assert read_yaml(path, "x") == ["1:30", "010", "1_0", "0x1", *numbers]


def test_an_infinite_record_is_a_value_all_the_way(project, capsys):
    project.notebook(
        "toy",
        "from companion.page.record import record\ninf = float('inf')\n"
        "record('eps', inf, 'dB', interval=(5.0, inf))",
    )
    project.claims({"at_most": None, "at_least": 3.0})
    folder = run("toy", keep=None)
    assert json.loads((folder / "toy.json").read_text())["records"]["eps"]["value"] == "inf"
    assert finished(plan("toy"))["records"]["eps"]["value"] == float("inf")
    code, out, _ = command(capsys, "check", str(folder))
    assert code == 0 and any("∞ dB (5 to ∞)" in line and "reproduced" in line for line in out)
    code, _, _ = command(capsys, "check", str(folder), "--reference", str(folder))
    assert code == 0
    command(capsys, "archive", str(folder / "toy.json"), "label")
    (kept,) = archived("book/archive/toy-*.json").values()
    assert kept["records"]["eps"]["value"] == float("inf")
    project.claims({"at_most": 3.0})
    assert command(capsys, "check", str(folder))[0] == 1


def test_a_page_quotes_an_infinite_record_as_a_sign(project, no_sphinx):
    code = "from companion.page.record import record\nrecord('eps', float('inf'))\nrecord('n', 1.5)"
    project.notebook("toy", code)
    with (project.root / "notebooks/toy.md").open("a") as page:
        page.write("\n{glue:text}`eps:.2f` dB, {glue:text}`n:.2f`, {glue:text}`toy.ipynb::eps`\n")
    book.build()
    text = (project.root / "book/sections/toy.ipynb").read_text()
    assert "∞ dB, {glue:text}`n:.2f`, {glue:text}`toy.ipynb::eps`" in text


# ---- locales and paths


def shell(root, *arguments, **environment):
    code = "from companion.start import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C"}])
def test_a_log_that_cannot_show_a_mark_is_no_failure(project, environment):
    project.claims({})
    run("toy")
    plain = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", **environment}
    done = shell(project.root, "check", **plain)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"toy-eps" in done.stdout


def test_nothing_is_left_open_at_the_end(project):
    """Python tells of it where a library turned such warnings on."""
    done = shell(project.root, "run", "toy", PYTHONWARNINGS="always::ResourceWarning")
    assert done.returncode == 0 and b"ResourceWarning" not in done.stderr


def test_a_name_beyond_ascii_in_a_c_locale(project):
    project.write("\u00fc.png", "1")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = shell(
        project.root, "run", "toy", "-p", "label", "\u00fc.png", "--out", "o\u00fct", **plain
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    told = json.loads((project.root / "o\u00fct" / "toy.json").read_text())
    assert told["parameters"]["label"] == "\u00fc.png"


@pytest.mark.parametrize("name", ["{braces}", "100 %d", 'it\'s "x"', "\u00fc \u2713", "#a?b"])
def test_any_folder_holds_a_project(tmp_path, monkeypatch, capsys, name):
    made = Project(tmp_path / name)
    monkeypatch.chdir(made.root)
    code, out, _ = command(capsys, "run", "toy", "--out", f"{name} out")
    assert code == 0
    assert [Path(line).parent.name for line in out] == [f"{name} out"] * 2


def test_a_folder_whose_name_is_no_text_is_told_before_any_work(tmp_path, monkeypatch, capsys):
    made = Project(tmp_path / "a\udcff")
    monkeypatch.chdir(made.root)
    code, _, err = command(capsys, "run", "toy")
    assert (code, len(err)) == (2, 1)
    assert "has a name that is no UTF-8" in err[0]


def test_a_folder_in_which_sphinx_is_lost_is_told_before_any_work(tmp_path, monkeypatch, capsys):
    made = Project(tmp_path / "a[1]")
    monkeypatch.chdir(made.root)
    code, _, err = command(capsys, "build")
    assert (code, len(err)) == (2, 1)
    assert "a path without [ is needed" in err[0]
    assert not (made.root / ".companion").exists()


@pytest.mark.parametrize("delay", [0.02, 0.3, 0.8, 1.3, 2.0, 3.0])
def test_ctrl_c_is_one_line_whenever_it_comes(project, delay):
    project.notebook("toy", "import time\nfor _ in range(300): time.sleep(0.1)")
    code = "from companion.start import main; print('up', flush=True); main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "toy"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.replace("\r", "\n").strip().splitlines()[-1].endswith(INTERRUPTED)
    assert "Traceback" not in err


def test_ctrl_c_where_nothing_can_be_raised_comes_again():
    program = """
import os, signal, time
import companion.cli, companion.start

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def app(*arguments, **options):
    Dying()
    time.sleep(30)

companion.cli.app = app
companion.start.main()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, f"{INTERRUPTED}\n")


def test_a_fold_says_what_its_code_makes(project):
    fold = "```{code-cell} ipython3\n---\ntags: [hide-input]\n"
    figure = "mystnb: {figure: {name: fig-two-clouds, caption: a}}"
    abouts = ["name: all-rows", figure, ""]
    cells = [f"{fold}{about}\n---\nx = {k}\n```\n" for k, about in enumerate(abouts)]
    project.notebook("toy", *cells)
    run("toy")
    section.write_section(project.root, plan("toy"), finished(plan("toy")), [], [])
    page = nbformat.read(project.root / "toy.ipynb", 4)
    told = {c.source: c.metadata.get("mystnb", {}).get("code_prompt_show") for c in page.cells}
    names = ["all rows", "figure two clouds", "this table"]
    assert [told[f"x = {k}"] for k in range(3)] == [f"Code: {name}" for name in names]


def test_a_run_tells_the_code_that_ran(project):
    edit = "page = Path('notebooks/toy.md')\npage.write_text(page.read_text().replace('1e', '2e'))"
    project.notebook("toy", f"from pathlib import Path\n{edit}\nvalue = 1e-3")
    todo = plan("toy")
    before = keys.code(todo.root, todo.notebook, todo.parameters)
    result = execute(todo, project.root, None)
    assert "2e-3" in todo.notebook.path.read_text()
    assert result["provenance"]["code"] == before


def test_a_path_in_the_environment_is_from_where_the_user_is(project, monkeypatch):
    record = "from companion.page.record import record"
    project.notebook("toy", f"import os\n{record}\nrecord('where', os.environ['OTLIB_MVTEC'])")
    (project.root / "below").mkdir()
    monkeypatch.chdir(project.root / "below")
    monkeypatch.setenv("OTLIB_MVTEC", "here")
    result = execute(plan("toy"), project.root, None)
    assert result["records"]["where"]["value"] == str(project.root / "below" / "here")


def test_an_error_of_no_words_is_told_by_its_kind():
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(ValueError("one\ntwo")) == "one"
