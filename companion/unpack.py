"""Unpack what `companion pack` made and run it: `python3 unpack.py FOLDER [arguments of campaign]`.

This file lies beside the parts and needs Python alone, no package and no network.
"""

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
    """Check the parts, unpack them into a folder, install the wheels, run `companion campaign`.

    arguments: the folder, and what is passed on. What was done before is not done again. Exits with
    the campaign's code; with one line and 1 where a part is missing or damaged, or where Python or
    machine are not those that the parts were packed for.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python3 unpack.py FOLDER [arguments of companion campaign]")
    here, folder = Path(__file__).resolve().parent, Path(arguments[0]).resolve()
    told = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    for what, value in machine().items():
        if told[what] != value:
            raise SystemExit(f"unpack: packed for {what} {told[what]}, this is {value}")
    if not (folder / "unpacked").is_file():
        _unpack(here, told["parts"], folder)
    bin_ = folder / "venv" / "bin"
    if not (bin_ / "companion").is_file():
        shared = ["--system-site-packages"] if told["without"] else []
        subprocess.run([sys.executable, "-m", "venv", *shared, folder / "venv"], check=True)
        wheels = sorted((folder / "wheels").glob("*.whl"))
        install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([bin_ / "python", *install, *wheels], check=True)
    given = {name: str(folder / path) for name, path in told["variables"].items()}
    words = [word.replace("{data}", str(folder / "data")) for word in told["arguments"]]
    command = [bin_ / "companion", "campaign", *words, *arguments[1:]]
    done = subprocess.run(command, cwd=folder / "project", env=os.environ | given, check=False)
    raise SystemExit(done.returncode)


def machine() -> dict[str, str]:
    """What wheels depend on: the version of Python, and the system."""
    return {"python": PYTHON, "machine": f"{platform.system()} {platform.machine()}"}


def _unpack(here, parts, folder):
    for name, digest in parts.items():
        if not (here / name).is_file():
            raise SystemExit(f"unpack: the part {name} is missing beside unpack.py")
        with (here / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise SystemExit(f"unpack: the part {name} is damaged: copy it again")
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BufferedReader(_Parts(here / name for name in parts))
    with tarfile.open(fileobj=whole, mode="r|") as archive:
        # Python 3.11.2, Debian's, has no filters; the hashes say that the parts are ours
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **options)
    (folder / "unpacked").touch()


if __name__ == "__main__":
    main(sys.argv[1:])
