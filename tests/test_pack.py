"""A campaign in parts: whole or not at all, and told in one line where it cannot be unpacked."""

import errno
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
    shutil.rmtree(there / "data")  # what was unpacked once is not unpacked again
    assert unpacked(packed, there, "--dry-run").returncode == 2
    assert "neither here nor in the project" in unpacked(packed, there, "--dry-run").stderr


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
