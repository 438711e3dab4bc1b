"""A tiny project in a temporary folder, for the tests of the pipeline."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import IPython.display
import pytest
import yaml
from hypothesis import settings
from playwright.sync_api import sync_playwright

from companion.pdf import BROWSERS

# a busy machine is no fault of what is tested; all else as it is there, on a CI without new draws
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")

ROOT = Path(__file__).parents[1]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
)
HEAD = """\
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
companion: {document: one2020, section: "II, Fig. 1"}
---
# A toy page
"""
PARAMETERS = """\
seed: int = 0  # seed of every draw
eps: float = 2e-4  # temperature
rho: float = float("inf")
fast: bool = False
label: str = "a"
sizes: list = [1, 2]
"""
CODE = """\
import random
from companion.page.record import record
random.seed(seed)
record("draw", random.random(), unit="dB", better="higher")
record("eps", eps)
record("rho_is_infinite", rho == float("inf"))
"""
CLAIM = {
    "id": "toy-eps",
    "document": "one2020",
    "kind": "statement",
    "where": "Fig. 1",
    "statement": "eps is small",
    "published": "at most .01",
    "notebook": "toy",
    "record": "eps",
    "at_most": 0.01,
    "because": "it is the default",
    "profiles": ["laptop"],
    "status": "reproduced",
}


def cell(code, *options):
    return "\n".join(["```{code-cell} ipython3", *options, code.rstrip(), "```", ""])


@pytest.fixture
def recorded(monkeypatch):
    """The notebook that the display calls of `record` would make."""
    outputs = []

    def display(data, raw, metadata):
        assert raw
        outputs.append({"output_type": "display_data", "data": data, "metadata": metadata})

    monkeypatch.setattr(IPython.display, "display", display)
    return {"cells": [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}]}


class Project:
    """Files of a project, and ways to change them."""

    def __init__(self, root):
        self.root = root
        self.write("notebooks/profiles.yml", "{smoke: {toy: {eps: 1e-3}}, laptop: {}}")
        self.write("book/equations.yml", "{}")
        self.write("book/references.bib", "@misc{one2020, title={A {Toy} Paper}}")
        told = "title: A toy\nversion: 1.0\nlicense: MIT\nauthors: [{name: The authors}]\n"
        self.write("CITATION.cff", told)
        self.write("otlib/__init__.py", "")  # its own, so that no key depends on the real one
        self.notebook("toy", CODE)
        self.claims({})

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")

    def notebook(self, name, *cells, parameters=PARAMETERS):
        cells = [text if text.startswith("```") else cell(text) for text in cells]
        first = cell(parameters, ":tags: [parameters]")
        self.write(f"notebooks/{name}.md", "\n".join([HEAD, first, *cells]))

    def claims(self, *changes):
        """Write claims: CLAIM with each of the changes; None takes an entry out."""
        entries = [{**CLAIM, **change} for change in changes]
        kept = [{k: v for k, v in entry.items() if v is not None} for entry in entries]
        documents = {}
        for entry in kept:
            documents.setdefault(entry.pop("document"), []).append(entry)
        for document, claims in documents.items():
            self.write(f"book/claims/{document}.yml", yaml.safe_dump({"claims": claims}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook `toy` and one claim, the working folder inside it."""
    made = Project(tmp_path / "project")
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder with what pip installs of the project, and nothing else of it."""
    pytest.importorskip("setuptools", minversion="77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("otlib", "companion", "book/archive", "book/published"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture
def run_alone(installed):
    """A function that runs a page's papermill command beside its notebook in an empty folder."""

    def run(box, notebook, folder):
        """box: text of the page's fold. Returns the executed notebook."""
        import nbformat

        shutil.copy(notebook, folder)
        (command,) = re.findall(r"^papermill .*$", box, re.MULTILINE)
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PYTHONPATH": str(installed), "PATH": search}
        words = [shutil.which("papermill", path=search), *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sorted(p.name for p in folder.iterdir()) == ["again.ipynb", Path(notebook).name]
        return nbformat.read(folder / "again.ipynb", 4)

    return run


@pytest.fixture
def forget(monkeypatch):
    """A function that forgets what the process opened, as `used.used` tells it; called once."""
    from otlib.assets import used

    def forget():
        monkeypatch.setattr(used, "_used", {})

    forget()
    return forget


@pytest.fixture
def refuses():
    """The check that a minimiser of `otlib.restore` refuses a value before any work."""

    def never(u):
        raise AssertionError("work before the checks")

    def check(minimise, good, name, value):
        changed = value if isinstance(value, dict) else {name: value}
        with pytest.raises(ValueError) as error:
            minimise(**{**good, "priors": [never], **changed})
        message = str(error.value)
        assert message.startswith(f"{name} ") and "\n" not in message and len(message) < 200

    return check


NAPS = """\
seed: int = 0  # of nothing; >= 0
rho: float = 0.1  # price of leaving a marginal (paper: .3); > 0
naps: int = 2  # jobs; >= 1
nap: float = 0.0  # what each takes, seconds; >= 0
form: str = "a"  # which; one of a, b
fast: bool = True
sizes: list = [1, 2]  # sides, pixels; >= 1
picture: str = ""  # an image file; path
"""
NAPPING = (
    """\
import time

from PIL import Image

from companion.page.jobs import by_job  # of otlib's room: its kernels are warm
from companion.page.record import record
""",
    """\
def rest(job):
    time.sleep(nap)
    return job


rested = by_job(rest, range(naps), "naps")
""",
    """\
record("loss", rho * (1 + seed), unit="dB", better="lower")
record("width", Image.open(picture).width if picture else 0)
""",
)


@pytest.fixture(scope="session")
def built_book(tmp_path_factory):
    """The folder of a project with one page, `naps`, built as the real book is."""
    from companion import build

    made = Project(tmp_path_factory.mktemp("served") / "project")
    shutil.rmtree(made.root / "otlib")  # the real one is to be found
    (made.root / "notebooks" / "toy.md").unlink()
    made.write("notebooks/profiles.yml", "{smoke: {naps: {rho: 0.2}}, laptop: {}}")
    made.notebook("naps", *NAPPING, parameters=NAPS)
    made.claims({"id": "loss", "notebook": "naps", "record": "loss", "at_most": 1.0})
    shutil.copy(ROOT / "_config.yml", made.root)
    shutil.copytree(ROOT / "book" / "_static", made.root / "book" / "_static")
    made.write("book/_toc.yml", "{format: jb-book, root: index, chapters: [{file: sections/naps}]}")
    made.write("book/index.md", "# T\n")
    build.build("laptop", root=made.root)
    return made.root


@pytest.fixture(scope="module")
def server(built_book):
    """A function that starts `companion serve` and gives (process, address); all are ended.

    python: a program that the server starts in place of the interpreter.
    """
    started = []

    def start(*arguments, python=sys.executable):
        for process in started:
            stop(process)
        code = f"import sys; sys.executable = {str(python)!r}\n"
        code += "from companion.start import main; main()"
        port = () if "--port" in arguments else ("--port", "0")
        words = [sys.executable, "-c", code, "serve", *arguments, *port]
        process = subprocess.Popen(words, cwd=built_book, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    def stop(process):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    yield start
    for process in started:
        stop(process)
    shutil.rmtree(built_book / ".companion" / "serve" / "jobs", ignore_errors=True)


@pytest.fixture(scope="module")
def chromium():
    """A function that starts the browser, and what it is to find in its environment."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        # Continuous integration promised a browser; elsewhere its absence is no fault of the book.
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        yield lambda **variables: playwright.chromium.launch(
            executable_path=executable, args=FLAGS.split(), env={**os.environ, **variables}
        )
