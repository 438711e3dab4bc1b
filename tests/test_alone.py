"""A reader without a checkout: the downloaded notebook runs where the project is only installed."""

import re
import shlex
from pathlib import Path

from companion import section
from companion.page.record import collect
from companion.run import plan, run

ROOT = Path(__file__).parents[1]


def test_the_installed_package_carries_templates_and_archive(installed):
    wanted = [*(ROOT / "companion/templates").iterdir(), *(ROOT / "book/archive").glob("*.json")]
    wanted += (ROOT / "book/archive").glob("*.safetensors")
    places = [path.relative_to(ROOT) for path in wanted]
    found = [
        installed / ("companion" if place.parts[0] == "book" else ".") / place for place in places
    ]
    assert [path for path in found if not path.is_file()] == []
    assert len(found) > 5


def test_the_command_gives_exactly_the_page_s_parameters(project, installed, run_alone, tmp_path):
    project.notebook(
        "toy",
        "import companion\nfrom companion.page.kept import files",
        "from companion.page.record import record",
        'record("told", repr((seed, eps, rho, fast, label, sizes)))\n'
        'record("where", companion.__file__)\nrecord("kept", len(files("book/archive/*.json")))',
    )
    changes = {"seed": -3, "eps": 1e-5, "rho": float("-inf"), "fast": True}
    changes |= {"label": "it's 1e3", "sizes": [-3, 40]}
    todo = plan("toy", changes)
    folder = run("toy", changes)
    empty = tmp_path / "empty"
    empty.mkdir()
    again = run_alone(section.rerun_box(todo), folder / "toy.ipynb", empty)
    records = {name: entry["value"] for name, entry in collect(again).items()}
    assert records["told"] == repr((-3, 1e-5, float("-inf"), True, "it's 1e3", [-3, 40]))
    assert records["where"] == str(installed / "companion/__init__.py")
    assert records["kept"] == len(list((ROOT / "book/archive").glob("*.json")))

    # the local command and the sweep's are for the same parameters
    box = section.rerun_box(todo)
    (here,) = re.findall(r"^companion run .*$", box, re.MULTILINE)
    words = shlex.split(here)
    told = [(words[i + 1], words[i + 2]) for i, word in enumerate(words) if word == "-p"]
    assert plan("toy", told).key == todo.key
