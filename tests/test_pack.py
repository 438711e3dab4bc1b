"""A campaign in parts: whole or not at all, and told in one line where it cannot be unpacked."""

import errno
import glob
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from companion import pack as packing
from companion.errors import UsageError
from companion.pack import pack
from companion.unpack import PYTHON

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The project and a picture in parts of 1 MiB, without any package but its own."""
    folder = tmp_path_factory.mktemp("pack")
    (folder / "brick.png").write_bytes((ROOT / "book/_static/denoising.png").read_bytes())
    every = [told.metadata["Name"] for told in importlib.metadata.distributions()]
    picture = ("exemplar", str(folder / "brick.png"))
    pages = ["texture_patch_size", "errata"]
    pack(ROOT, folder / "out", "smoke", [picture], pages, every, part_mib=1)
    return folder / "out"


def unpacked(packed, folder, *arguments):
    """Run unpack.py as another machine would; the packages left out come by PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    command = [sys.executable, packed / "unpack.py", folder, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_parts_are_small_and_hashed(packed):
    told = json.loads((packed / "manifest.json").read_text())
    assert list(told["parts"]) == sorted(path.name for path in packed.glob("part.*"))
    assert len(told["parts"]) > 1
    for name, digest in told["parts"].items():
        data = (packed / name).read_bytes()
        assert len(data) <= 2**20 and hashlib.sha256(data).hexdigest() == digest
    assert told["arguments"][-3:] == ["-p", "exemplar", "{data}/exemplar/brick.png"]


def test_the_project_is_left_as_it_was(packed):
    assert not (ROOT / "build").exists()


def test_it_unpacks_and_runs_the_campaign(packed, tmp_path):
    there = tmp_path / "there"
    done = unpacked(packed, there, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == {
        "texture_patch_size",
        "errata",
    }
    picture = (there / "data/exemplar/brick.png").read_bytes()
    assert picture == (ROOT / "book/_static/denoising.png").read_bytes()
    assert not (there / "project/.git").exists() and not (there / "project/.venv").exists()
    for mark in ("unpacked", "installed"):  # cut off before them: done again
        (there / mark).unlink()
    (there / "venv/bin/companion").write_text("")
    assert unpacked(packed, there, "--dry-run").stdout == done.stdout
    shutil.rmtree(there / "data")  # what was unpacked once is not unpacked again
    assert unpacked(packed, there, "--dry-run").returncode == 2
    assert "neither here nor in the project" in unpacked(packed, there, "--dry-run").stderr


def test_what_links_lead_to_and_all_that_a_pattern_names_travels(tmp_path, monkeypatch):
    every = [told.metadata["Name"] for told in importlib.metadata.distributions()]
    mine = tmp_path / "mine [1]"
    (mine / "far/below").mkdir(parents=True)
    (mine / "far/below/c.png").write_bytes(b"c")
    for name in ("a1.png", "a2.png", "b.png"):
        (mine / name).write_bytes(name.encode())
    (mine / "photographs").mkdir()
    (mine / "photographs/one.png").symlink_to(mine / "a1.png")
    (mine / "photographs/below").symlink_to(mine / "far/below")
    (mine / "photographs/back").symlink_to(mine / "photographs")
    (mine / "photographs/lost.png").symlink_to(mine / "nowhere")
    monkeypatch.setenv("OTLIB_MVTEC", str(mine / "photographs"))
    given = [("images", "a*.png"), ("exemplar", str(mine / "photographs/one.png"))]
    monkeypatch.chdir(mine)
    pages = ["dot_slides", "texture_patch_size"]
    told = {"images": "{data*}/images/", "exemplar": "{data}/exemplar/one.png"}
    pack(ROOT, tmp_path / "out", "smoke", given, pages, every)
    words = json.loads((tmp_path / "out/manifest.json").read_text())["arguments"]
    values = dict(zip(words[-5::3], words[-4::3], strict=True))
    assert values["exemplar"] == told["exemplar"] and values["images"].startswith(told["images"])
    whole = io.BytesIO(b"".join(p.read_bytes() for p in sorted((tmp_path / "out").glob("part.*"))))
    with tarfile.open(fileobj=whole) as archive:
        assert not any(member.issym() or member.islnk() for member in archive)
    there = tmp_path / "there [2]"
    done = unpacked(tmp_path / "out", there, "--dry-run")
    assert done.returncode == 0, done.stderr
    read = lambda folder: {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert read(there / "data/OTLIB_MVTEC") == {
        "photographs/one.png": b"a1.png",
        "photographs/below/c.png": b"c",
    }
    assert read(there / "data/exemplar") == {"one.png": b"a1.png"}
    assert sorted(Path(name).name for name in read(there / "data/images")) == ["a1.png", "a2.png"]
    pattern = values["images"].replace("{data*}", glob.escape(str(there / "data")))
    assert sorted(Path(path).name for path in glob.glob(pattern)) == ["a1.png", "a2.png"]


def test_a_campaign_runs_what_was_packed(packed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    start = "from companion.start import main; main()"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"}
    how = dict(cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    campaign = lambda *words: subprocess.run(
        [sys.executable, "-c", start, "campaign", "--packed", *words], **how
    )
    done = campaign(out, "--page", "errata", "--dry-run")
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert set(names) == {"texture_patch_size", "errata"}
    assert (out / "unpacked/installed").is_file()
    done = campaign(tmp_path)
    assert done.returncode == 2 and "needs a folder that `pack` wrote" in done.stderr


def test_wheels_are_of_the_python_asked_for(packed, tmp_path):
    other = "3.13" if PYTHON == "3.12" else "3.12"
    installed = {told.metadata["Name"] for told in importlib.metadata.distributions()}
    without = sorted(installed - {"MarkupSafe", "markupsafe"})  # a small one that is compiled
    pack(ROOT, tmp_path / "out", "smoke", [], ["errata"], without, python=other)
    assert json.loads((tmp_path / "out/manifest.json").read_text())["python"] == other
    whole = io.BytesIO(b"".join(p.read_bytes() for p in sorted((tmp_path / "out").glob("part.*"))))
    with tarfile.open(fileobj=whole) as archive:
        wheels = [name for name in archive.getnames() if name.endswith(".whl")]
    (compiled,) = [name for name in wheels if "markupsafe" in name.lower()]
    assert f"-cp{other.replace('.', '')}-" in compiled
    assert not any(f"-cp{PYTHON.replace('.', '')}-cp" in name for name in wheels)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda out: (out / "part.001").unlink(), "the part part.001 is missing"),
        (lambda out: (out / "part.000").write_bytes(b"x"), "the part part.000 is damaged"),
        (
            lambda out: (out / "manifest.json").unlink(),
            "no manifest.json beside unpack.py: No such",
        ),
        (
            lambda out: (out / "manifest.json").write_text('{"python": "3'),
            "manifest.json is damaged",
        ),
        (lambda out: (out / "manifest.json").write_text("{}"), "manifest.json is damaged: copy"),
        (lambda out: change(out, python="2.7"), "packed for python 2.7, this is 3."),
        (lambda out: change(out, machine="Plan9 mips"), "packed for machine Plan9 mips, this is"),
    ],
)
def test_what_cannot_be_unpacked_is_one_line(packed, tmp_path, harm, message):
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    harm(out)
    done = unpacked(out, tmp_path / "there")
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "there").exists()


def failing(out):
    """A pack of one file that is no wheel."""
    with tarfile.open(out / "part.000", "w") as archive:
        archive.addfile(tarfile.TarInfo("wheels/none-1-py3-none-any.whl"))
    digest = hashlib.sha256((out / "part.000").read_bytes()).hexdigest()
    change(out, parts={"part.000": digest})


def test_what_cannot_be_installed_is_one_line_and_not_done(packed, tmp_path):
    out, there = tmp_path / "out", tmp_path / "there"
    shutil.copytree(packed, out)
    failing(out)
    done = unpacked(out, there)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("unpack: pip failed: ERROR: ")
    assert (there / "unpacked").is_file() and not (there / "installed").exists()


def test_a_file_or_the_folder_of_another_pack_is_refused(packed, tmp_path):
    (tmp_path / "file").touch()
    done = unpacked(packed, tmp_path / "file")
    assert done.returncode == 1 and done.stderr.endswith("/file' is a file, needs a folder\n")
    out, there = tmp_path / "out", tmp_path / "there"
    shutil.copytree(packed, out)
    failing(out)
    unpacked(out, there)
    before = sorted(there.rglob("*"))
    done = unpacked(packed, there)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "/there' holds another pack, needs a new folder" in done.stderr
    assert sorted(there.rglob("*")) == before


def change(out, **facts):
    told = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**told, **facts}))


def test_a_full_disk_leaves_nothing(packed, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile, "open", full)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    with pytest.raises(UsageError, match=r"cannot pack into .*: No space left on device"):
        pack(ROOT, tmp_path / "out", "smoke", [], ["errata"], [])
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_told_first(packed, tmp_path):
    with pytest.raises(UsageError, match="is there already: needs a folder that is not"):
        pack(ROOT, packed, "smoke")
    with pytest.raises(UsageError, match="unknown notebook 'erata': did you mean 'errata'"):
        pack(ROOT, tmp_path / "out", "smoke", [], ["erata"])
    with pytest.raises(UsageError, match="unknown profile 'smok'"):
        pack(ROOT, tmp_path / "out", "smok")
    with pytest.raises(UsageError, match=r"--python '312' is no version of Python, such as 3\.\d+"):
        pack(ROOT, tmp_path / "out", "smoke", python="312")
    assert list(tmp_path.iterdir()) == []


def test_an_override_without_a_path_packs_nothing(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTLIB_")]:
        monkeypatch.delenv(name)
    told = packing._data(None, ROOT, [("trained", "")])
    assert told == {"overrides": [("trained", "")], "variables": {}}
