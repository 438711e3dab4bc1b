"""Unpack what `companion pack` made and run it: `python3 unpack.py FOLDER [arguments of campaign]`.

This file lies beside the parts and needs Python alone, no package and no network.
"""

import glob
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NoReturn

PYTHON = platform.python_version().rpartition(".")[0]  # of this machine
_TOLD = {"parts", "without", "variables", "arguments"}  # by manifest.json, beside the machine
_MARKS = ("begun", "unpacked", "installed")  # files in the folder: of which pack, and how far


class _Parts(io.RawIOBase):
    """The parts, read as one file."""

    def __init__(self, paths):
        self.paths, self.file = list(paths), None

    def readable(self):
        return True

    def readinto(self, buffer):
        while self.file is not None or self.paths:
            self.file = self.file or self.paths.pop(0).open("rb")
            if count := self.file.readinto(buffer):
                return count
            self.file.close()
            self.file = None
        return 0


def main(arguments: list[str]) -> NoReturn:
    """Check the parts, unpack them into a folder, install the wheels, become `companion campaign`.

    arguments: the folder, and what is passed on. What was done before is not done again. Ends with
    one line and 1 where the pack is not whole, where Python or machine are not those that it was
    packed for, where the folder holds another pack, and where nothing can be written or installed.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python3 unpack.py FOLDER [arguments of companion campaign]")
    here, folder = Path(__file__).resolve().parent, Path(arguments[0]).resolve()
    told = _manifest(here)
    for what, value in machine().items():
        if told[what] != value:
            raise SystemExit(f"unpack: packed for {what} {told[what]}, this is {value}")
    try:
        _prepare(here, told, folder)
        _become_campaign(told, folder, arguments[1:])
    except (OSError, tarfile.TarError) as error:
        why = getattr(error, "strerror", None) or error
        raise SystemExit(f"unpack: {str(folder)!r}: {why}") from None


def machine() -> dict[str, str]:
    """What wheels depend on: the version of Python, and the system."""
    return {"python": PYTHON, "machine": f"{platform.system()} {platform.machine()}"}


def _manifest(here):
    """What manifest.json beside this file tells."""
    try:
        told = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
        lacking = {*_TOLD, *machine()} - told.keys()
    except OSError as error:
        raise SystemExit(f"unpack: no manifest.json beside unpack.py: {error.strerror}") from None
    except (ValueError, AttributeError):
        lacking = _TOLD
    if lacking:
        raise SystemExit("unpack: manifest.json is damaged: copy it again")
    return told


def _prepare(here, told, folder):
    """Unpack and install, each unless its mark says that it was done."""
    if folder.exists() and not folder.is_dir():
        raise SystemExit(f"unpack: {str(folder)!r} is a file, needs a folder")
    pack = json.dumps(told["parts"])  # tells it from others: the hashes of its parts
    for mark in _MARKS:
        if (folder / mark).is_file() and (folder / mark).read_text(encoding="utf-8") != pack:
            raise SystemExit(f"unpack: {str(folder)!r} holds another pack, needs a new folder")
    begun, unpacked, installed = (folder / mark for mark in _MARKS)
    if not unpacked.is_file():
        _check(here, told["parts"])
        folder.mkdir(parents=True, exist_ok=True)
        _write(begun, pack)
        _unpack(here, told["parts"], folder)
        _write(unpacked, pack)
    if not installed.is_file():
        _install(folder, told["without"])
        _write(installed, pack)


def _write(mark, text):
    """Write a mark whole or not at all."""
    aside = mark.with_name(f".{mark.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, mark)


def _check(here, parts):
    for name, digest in parts.items():
        if not (here / name).is_file():
            raise SystemExit(f"unpack: the part {name} is missing beside unpack.py")
        with (here / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise SystemExit(f"unpack: the part {name} is damaged: copy it again")


def _unpack(here, parts, folder):
    whole = io.BufferedReader(_Parts(here / name for name in parts))
    with tarfile.open(fileobj=whole, mode="r|") as archive:
        # Python 3.11.2, Debian's, has no filters; the hashes say that the parts are ours
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **options)


def _install(folder, without):
    """Make an environment of the wheels, in place of one that an interruption left half made."""
    shared = ["--system-site-packages"] if without else []
    _python(sys.executable, "venv", "--clear", *shared, folder / "venv")
    wheels = sorted((folder / "wheels").glob("*.whl"))
    install = ["install", "--quiet", "--no-index", "--no-deps"]
    _python(folder / "venv" / "bin" / "python", "pip", *install, *wheels)


def _python(python, module, *arguments):
    """Run a module; exit with the line that tells why it failed."""
    # -I: what PYTHONPATH leads to would pass for installed
    command = [python, "-I", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in f"{done.stderr}\n{done.stdout}".splitlines()]
        told = [line for line in lines if "ERROR" in line] or [*filter(None, lines), "no reason"]
        raise SystemExit(f"unpack: {module} failed: {told[0]}")


def _become_campaign(told: dict, folder: Path, arguments: list[str]) -> NoReturn:
    given = {name: str(folder / path) for name, path in told["variables"].items()}
    data = str(folder / "data")
    words = [
        word.replace("{data}", data).replace("{data*}", glob.escape(data))
        for word in told["arguments"]
    ]
    os.chdir(folder / "project")
    command = folder / "venv" / "bin" / "companion"
    # in its place, not beside it: who ends this process ends the campaign
    os.execve(command, [command, "campaign", *words, *arguments], os.environ | given)


if __name__ == "__main__":
    main(sys.argv[1:])
