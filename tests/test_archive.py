import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from companion import archive as archives
from companion import notebooks
from companion import section as sections
from companion.claims import load_claims
from companion.page.kept import files
from companion.run import run
from companion.verdicts import judge, kept_runs
from otlib.assets import exemplars, pairs, photographs, registry, used

ROOT = Path(__file__).parents[1]

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
    large += figure("faint", "display(png(360), raw=True)")
    curves = figure("curves", "display(svg(10), raw=True)\ndisplay(svg(200_000), raw=True)")
    project.notebook("toy", PICTURES, large, figure("small", small), curves)
    archives.archive(project.root, run("toy") / "toy.json", "full-size")
    return project


def test_what_kept_runs_opened_is_what_the_registry_has():
    """It makes no kept run old (`companion.keys`), so that its hashes must be those of the runs."""
    for path in sorted((ROOT / "book/archive").glob("*.json")):
        for asset in json.loads(path.read_text())["provenance"]["assets"]:
            if asset["name"] in registry.REGISTRY:
                entry = registry.REGISTRY[asset["name"]]
                assert asset["sha256"] == entry.sha256, (path.name, asset["name"])


def test_the_runs_of_every_page_that_answers_a_claim_are_ranked():
    book = load_claims(ROOT)
    assert {claim.notebook for claim in book.claims if claim.record} <= set(book.evidence)


def test_what_the_archive_contradicts_has_its_cause_told():
    """A status is that of a page's own run; the verdict shown may be that of a kept one."""
    judged = judge(load_claims(ROOT), kept_runs(ROOT))
    off = [one.claim for one in judged if one.answers and one.verdict in ("differs", "mixed")]
    assert len(off) > 3
    assert [claim.id for claim in off if not (claim.explanation.strip() and claim.cause)] == []


def test_figures_are_kept_small_and_the_rest_is_told(kept):
    folder = kept.root / "book/archive"
    names = {path.name for path in (folder / "toy-full-size").iterdir()}
    assert names == {"noise.webp", "faint.webp", "small.png", "curves.svg"}
    limit = archives.FIGURE_KIB * 1024
    assert all(path.stat().st_size <= limit for path in (folder / "toy-full-size").iterdir())
    told = json.loads((folder / "toy-full-size.json").read_text())["figures"]
    halved = told["noise"]["halved"]
    assert halved > 0
    assert Image.open(folder / told["noise"]["file"]).size == (-(-900 // 2**halved),) * 2
    assert Image.open(folder / told["small"]["file"]).size == (40, 40)
    assert Image.open(folder / told["faint"]["file"]).size == (360, 360)  # too large as PNG alone
    assert told["small"]["halved"] == told["faint"]["halved"] == 0
    assert told["curves-2"]["left_out"] == "195 KiB"
    assert "file" not in told["curves-2"]
    assert told["noise"]["alt"] == "a thing"

    kept.notebook("toy", PICTURES)  # a page without figures, kept again
    archives.archive(kept.root, run("toy") / "toy.json", "full-size")
    assert [path.name for path in folder.iterdir()] == ["toy-full-size.json"]


@pytest.mark.parametrize("number", range(3))
def test_a_run_that_cannot_be_kept_leaves_the_one_before_whole(kept, monkeypatch, number):
    folder = kept.root / "book/archive"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    two = [figure(name, "display(png(50), raw=True)") for name in ("small", "new")]
    kept.notebook("toy", PICTURES, *two)
    path = run("toy") / "toy.json"
    write, written = Path.write_bytes, []

    def full(path, data):
        if len(written) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        archives.archive(kept.root, path, "full-size")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    archives.archive(kept.root, path, "full-size")
    assert {path.name for path in (folder / "toy-full-size").iterdir()} == {"small.png", "new.png"}


def test_runs_of_two_pages_may_have_one_title(kept):
    path = kept.root / "book/archive/toy-full-size.json"
    (run_kept,) = kept_runs(kept.root)
    path.with_name("other-full-size.json").write_text(path.read_text().replace("toy", "other"))
    found = kept_runs(kept.root)
    assert [run["notebook"] for run in found] == ["other", "toy"]
    assert found[1]["kept"] == run_kept["kept"]


def test_a_page_shows_published_kept_and_present_numbers(kept):
    result = json.loads((run("toy", profile="smoke") / "toy.json").read_text())
    kept.claims({"profiles": ["laptop", "smoke"]})

    def shown():
        found = kept_runs(kept.root)
        return sections.numbers(judge(load_claims(kept.root), [result, *found]), found)

    section = shown()
    facts = result["provenance"]
    device, date = facts["device"], facts["date"][:10]
    verdict = '<a href="scoreboard.html#claim-toy-eps">✔ reproduced</a>'
    assert "| Statement | Verdict | Published | C: full-size | C: this run |" in section
    assert f"| Fig. 1: ε is small | {verdict} | at most .01 | ✔ 0.0002 | ✔ 0.001 |" in section
    records = "{download}`its records <../archive/toy-full-size.json>`"
    assert f"- **this run**: smoke, {device}, {date}\n" in section
    assert f"- **full-size**: laptop, {device}, {date}; {records}" in section
    image = "```{image} ../archive/toy-full-size/small.png\n:alt: a thing\n:loading: lazy\n```"
    assert f"{image}\n\nA figure.\n" in section
    halved = kept_runs(kept.root)[0]["figures"]["noise"]["halved"]
    assert f"A figure. Shown at 1/{2**halved} of its size." in section
    assert "curves-2" not in section

    path = kept.root / "book/archive/toy-full-size.json"
    path.write_text(path.read_text().replace(facts["code"]["notebooks/toy.md"], "0" * 64))
    section = shown()
    assert section.count(f"{date}, changed since: notebooks/toy.md") == 2  # the run, its figures
    (path,) = files("book/archive/*.json")
    other = json.loads(path.read_text())
    del other["records"]["eps"]  # kept before the page recorded it
    path.write_text(json.dumps(other))
    assert f"| {verdict} | at most .01 | ✔ 0.001 |\n" in shown()


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


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(60, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def products(root):
    """The least folder of MVTec AD's layout that gives a pair."""
    for index in range(4):
        picture(root / f"bolt/train/good/{index}.png", index)
    picture(root / "bolt/test/cut/0.png", 9)
    return root


# by the name of a page's parameter: what makes a user's path, and what the page reads it with
READERS = {
    "exemplar": (lambda root: picture(root / "own.png"), lambda path: exemplars.load(path, 48)),
    "images": (
        lambda root: picture(root / "a/1.png", 1).parent.parent,
        lambda path: photographs.sets(path, 48, (1, 0, 0)),
    ),
    "mvtec": (products, lambda path: pairs.draw(path, 1, 48)),
}
CALLS = {"exemplar": r"exemplars\.load\(", "mvtec": r"draw\(mvtec"}
CALLS["images"] = r"(photographs\.sets|rotations)\(images,"  # the second calls the first
# numbers, weights, maps, code
NO_PICTURES = {"prior", "material", "archive", "trained", "fits", "save", "page"}


def paths_of(page):
    """The parameters of a page that may be a path."""
    notebook = notebooks.load(ROOT, page)
    return [
        name
        for name, parameter in notebook.parameters.items()
        if parameter.type == "str" and notebooks.is_path(parameter, "/some/where")
    ]


TAKING = [
    (page, name)
    for page in notebooks.names(ROOT)
    for name in paths_of(page)
    if name not in NO_PICTURES
]


@pytest.mark.parametrize(("page", "name"), TAKING)
@pytest.mark.usefixtures("forget")
def test_each_page_s_pictures_of_the_user_s_are_private(tmp_path, page, name):
    assert re.search(CALLS[name], (ROOT / f"notebooks/{page}.md").read_text())
    make, read = READERS[name]
    path = make(tmp_path)
    assert read(str(path))
    (row,) = used.used()
    assert row["private"] and path.name in row["source"]


def test_pages_that_take_pictures_are_known():
    assert {name for _, name in TAKING} == READERS.keys()
    assert len(TAKING) >= 10


def test_pictures_that_a_variable_names_are_private(tmp_path, monkeypatch, forget):
    with_pictures = [name for name, asset in registry.REGISTRY.items() if asset.pictures]
    assert sorted(with_pictures) == ["elpv", "kodim23", "mvtec"]
    monkeypatch.setenv("OTLIB_MVTEC", str(products(tmp_path)))
    for name in ("elpv", "kodim23"):
        monkeypatch.setenv(registry.REGISTRY[name].variable, str(registry.find(name)))
    reads = {
        "elpv": lambda: pairs.draw("elpv", 1, 32),
        "kodim23": lambda: photographs.files(),
        "mvtec": lambda: pairs.draw("mvtec", 1, 32),
    }
    for read in reads.values():
        forget()
        read()
        assert any(row["private"] for row in used.used())


def test_a_page_run_on_a_file_of_the_user_s_keeps_records_and_no_figures(tmp_path, monkeypatch):
    """The cheapest page, at toy size, from the run to the archive."""
    root = tmp_path / "project"
    (root / "book").mkdir(parents=True)
    for name in ("notebooks", "otlib", "companion"):
        (root / name).symlink_to(ROOT / name)
    for name in ("references.bib", "claims"):
        (root / "book" / name).symlink_to(ROOT / "book" / name)
    monkeypatch.chdir(root)
    mine = picture(tmp_path / "private.png")
    change = {"exemplar": str(mine), "steps": 1, "dual_steps": 1, "patches": [4], "count": 40}
    change |= {"size": 32}
    folder = run("texture_patch_size", change, "smoke", root=root)
    written = archives.archive(root, folder / "texture_patch_size.json", "mine")
    assert [path.name for path in written] == ["texture_patch_size-mine.json"]
    assert [path.name for path in (root / "book/archive").iterdir()] == [written[0].name]
    kept = written[0].read_text()
    told = json.loads(kept)
    assert told["records"] and told["figures"]
    assert {about["left_out"] for about in told["figures"].values()} == {"the data are the user's"}
    assert str(tmp_path) not in kept and told["parameters"]["exemplar"] == "private.png"
