import json

import pytest
from PIL import Image

from companion import archive as archives
from companion import section as sections
from companion.claims import judge, load_claims
from companion.page.kept import archived, files
from companion.run import run

PICTURES = """\
import io
import numpy as np
from IPython.display import display
from PIL import Image
from companion.page.record import record
record("eps", eps)
def png(side):
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side), np.uint8)
    Image.fromarray(noise).save(stream, "png")
    return {"image/png": stream.getvalue()}
def svg(size):
    return {"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'><!--{'x' * size}--></svg>"}
"""


def figure(name, code):
    head = f"mystnb:\n  figure: {{name: {name}, caption: A figure.}}\n  image: {{alt: a thing}}"
    return f"```{{code-cell}} ipython3\n---\n{head}\n---\n{code}\n```\n"


@pytest.fixture
def kept(project):
    """A run kept with its figures; returns the project."""
    large, small = figure("noise", "display(png(900), raw=True)"), "display(png(40), raw=True)"
    curves = figure("curves", "display(svg(10), raw=True)\ndisplay(svg(200_000), raw=True)")
    project.notebook("toy", PICTURES, large, figure("small", small), curves)
    archives.archive(project.root, run("toy") / "toy.json", "full-size")
    return project


def test_figures_are_kept_small_and_the_rest_is_told(kept):
    folder = kept.root / "book/archive"
    names = {path.name for path in (folder / "toy-full-size").iterdir()}
    assert names == {"noise.png", "small.png", "curves.svg"}
    limit = archives.FIGURE_KIB * 1024
    assert all(path.stat().st_size <= limit for path in (folder / "toy-full-size").iterdir())
    told = json.loads((folder / "toy-full-size.json").read_text())["figures"]
    halved = told["noise"]["halved"]
    assert halved > 0
    assert Image.open(folder / told["noise"]["file"]).size == (-(-900 // 2**halved),) * 2
    assert Image.open(folder / told["small"]["file"]).size == (40, 40)
    assert told["small"]["halved"] == 0
    assert told["curves-2"]["left_out"] == "195 KiB"
    assert "file" not in told["curves-2"]
    assert told["noise"]["alt"] == "a thing"

    kept.notebook("toy", PICTURES)  # a page without figures, kept again
    archives.archive(kept.root, run("toy") / "toy.json", "full-size")
    assert [path.name for path in folder.iterdir()] == ["toy-full-size.json"]


def test_a_page_shows_published_kept_and_present_numbers(kept):
    result = json.loads((run("toy", profile="smoke") / "toy.json").read_text())
    judged = judge(load_claims(kept.root), {"toy": result["records"]}, "laptop")
    found = archived("book/archive/toy-*.json")
    section = sections.numbers(judged, result, found)
    (head,) = [line for line in section.splitlines() if line.startswith("| Statement")]
    facts = result["provenance"]
    device, date = facts["device"], facts["date"][:10]
    assert head == (
        f"| Statement | Published | Kept: full-size, laptop, {device}, {date} "
        f"| This run, smoke, {device}, {date} | Verdict |"
    )
    assert "| Fig. 1: eps is small | 2e-4 | 0.0002 | 0.001 | ✔ reproduced |" in section
    assert "![a thing](../archive/toy-full-size/small.png)\n\nA figure.\n" in section
    halved = next(iter(found.values()))["figures"]["noise"]["halved"]
    assert f"A figure. Shown at 1/{2**halved} of its size." in section
    assert "curves-2" not in section

    path = kept.root / "book/archive/toy-full-size.json"
    path.write_text(path.read_text().replace(facts["code"]["notebooks/toy.md"], "0" * 64))
    section = sections.numbers(judged, result, archived("book/archive/toy-*.json"))
    assert section.count(f"{date}, changed since: notebooks/toy.md") == 2  # the column, the figures
    (path,) = files("book/archive/*.json")
    other = json.loads(path.read_text())
    del other["records"]["eps"]  # kept before the page recorded it
    path.write_text(json.dumps(other))
    section = sections.numbers(judged, result, archived("book/archive/toy-*.json"))
    assert "| 2e-4 | – | 0.001 |" in section


def test_figures_of_the_user_s_own_data_are_not_kept(project):
    asset = {
        "name": "cells",
        "source": "folder mine",
        "sha256": "ab" * 32,
        "licence": "",
        "private": True,
    }
    used = f"types.SimpleNamespace(used=lambda: [{asset}])"
    stand_in = f"import sys, types\nsys.modules['otlib.assets.used'] = {used}"
    project.notebook("toy", stand_in, PICTURES, figure("small", "display(png(40), raw=True)"))
    (path,) = archives.archive(project.root, run("toy") / "toy.json", "mine")
    told = json.loads(path.read_text())["figures"]["small"]
    assert told["left_out"] == "the data are the user's"
    assert not (project.root / "book/archive/toy-mine").exists()
