"""Put all that a campaign needs into files that a machine without a network can take."""

import glob
import hashlib
import importlib.metadata
import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging import tags
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from companion import unpack
from companion.build import Pairs, plans_of_book
from companion.errors import UsageError
from companion.files import named, of_user, walk

PART_MIB = 60
_PROJECT = "ot-imaging-companion"
_ASIDE = re.compile(
    r"\..*|build|_build|__pycache__|sections|.*\.egg-info"
)  # made, or not for a run


class _Splitting(io.RawIOBase):
    """A file that goes on in the next part where one is full; `parts` tells name and SHA-256."""

    def __init__(self, folder, limit):
        self.folder, self.limit, self.left = folder, limit, 0
        self.parts: dict[str, str] = {}
        self.name, self.file, self.digest = "", io.BytesIO(), hashlib.sha256()

    def writable(self):
        return True

    def write(self, data):
        data = memoryview(data).cast("B")
        done = 0
        while done < len(data):
            if not self.left:
                self.finish()
                self.name = f"part.{len(self.parts):03d}"
                self.file, self.left = (self.folder / self.name).open("wb"), self.limit
                self.digest = hashlib.sha256()
            piece = data[done : done + self.left]
            self.file.write(piece)
            self.digest.update(piece)
            self.left -= len(piece)
            done += len(piece)
        return done

    def finish(self):
        self.file.close()
        if self.name:
            self.parts[self.name] = self.digest.hexdigest()


def pack(
    root: Path,
    to: Path,
    profile: str,
    overrides: Pairs = (),
    pages: Sequence[str] = (),
    without: Sequence[str] = (),
    part_mib: int = PART_MIB,
    python: str = unpack.PYTHON,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Write the project, its packages and the data of a campaign into parts of a few megabytes.

    root: project folder. to: folder that is not there yet. profile, overrides, pages: of the
        campaign, which are checked as it does; files and folders among the values travel, and so do
        those that OTLIB_* variables name. without: packages that the other machine has, such as
        torch. part_mib: size of a part at most, MiB. python: version of the other machine, "3.12".
    The other machine needs that version of Python and `python3 unpack.py FOLDER`, beside the
    parts, which takes more arguments of `companion campaign`. Returns the files written, all or
    none. Raises UsageError as `plans_of_book` does, where `to` is there, a package has no wheel, or
    the disk is full.
    """
    if not re.fullmatch(r"3\.\d+", python):
        raise UsageError(f"--python {python!r} is no version of Python, such as {unpack.PYTHON}")
    plans_of_book(root, profile, overrides, pages)
    if to.exists():
        raise UsageError(f"{str(to)!r} is there already: needs a folder that is not")
    aside = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=aside) as scratch:
            say("wheels of the packages that are installed here")
            wheels = _wheels(root, Path(scratch), without, python)
            out = _Splitting(aside, part_mib * 2**20)
            say("parts")
            # of links what they lead to: there they would lead nowhere
            with tarfile.open(fileobj=out, mode="w|", dereference=True) as archive:
                for path in wheels:
                    archive.add(path, f"wheels/{path.name}")
                for file in _files(root):
                    archive.add(root / file, f"project/{file}")
                told = _data(archive, root, overrides)
            out.finish()
        words = ["--profile", profile, *(word for page in pages for word in ("--page", page))]
        words += [word for pair in told.pop("overrides") for word in ("-p", *pair)]
        about = unpack.machine() | {"python": python, "parts": out.parts, "without": list(without)}
        about |= {"arguments": words, **told}
        (aside / "manifest.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        shutil.copy(unpack.__file__, aside / "unpack.py")
        os.replace(aside, to)
    except OSError as error:
        raise UsageError(f"cannot pack into {str(to)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sorted(to.iterdir())


def _wheels(root, folder, without, python):
    """A wheel of each package that the project needs, at the version installed, and its own."""
    left_out = {canonicalize_name(name) for name in without}
    carried = re.findall(r"^([\w.-]+)==", (root / "carried.txt").read_text(), re.MULTILINE)
    fetch = ("download", "--only-binary=:all:", "--python-version", python, "-d", folder)
    needed = _needed(f"{_PROJECT}[sweep]", python, left_out | {_PROJECT}, folder, fetch)
    wanted = {*needed, *map(canonicalize_name, carried)} - left_out
    pins = {name: f"{name}=={importlib.metadata.version(name)}" for name in sorted(wanted)}
    copy = folder / "source"  # pip leaves a folder `build` in what it makes a wheel of
    for file in _files(root):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, copy / file)
    _pip("wheel", "-w", folder, *pins.values(), copy)
    version = tuple(map(int, python.split(".")))
    fitting = {*tags.cpython_tags(version), *tags.compatible_tags(version)}
    others = []
    for path in folder.glob("*.whl"):
        name, _, _, of = parse_wheel_filename(path.name)
        if not of & fitting:  # it is of this Python
            path.unlink()
            others.append(pins[name])
    if others:
        _pip(*fetch, *others)
    return sorted(folder.glob("*.whl"))


def _pip(command, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        raise UsageError(f"no wheel: {(errors or [done.stderr.strip()])[0]}")


def _needed(package, python, aside, folder, fetch):
    """The names of the packages, as installed here, that one needs under a version of Python.

    aside: packages of which only the needs are told. What is needed there alone is fetched into
    the folder.
    """
    seen: set[tuple[str, str]] = set()
    here: set[str] = set()
    waiting = [Requirement(package)]
    there = {"python_version": python, "python_full_version": f"{python}.0"}
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        new = {(name, extra) for extra in ("", *need.extras)} - seen
        if not new:
            continue
        seen |= new
        try:
            told = importlib.metadata.distribution(name)
            here.add(name)
        except importlib.metadata.PackageNotFoundError:
            if name in aside:
                continue
            before = {*folder.glob("*.whl")}
            _pip(*fetch, f"{need.name}{need.specifier}")
            (wheel,) = {*folder.glob("*.whl")} - before
            (about,) = [p for p in zipfile.Path(wheel).iterdir() if p.name.endswith(".dist-info")]
            told = importlib.metadata.PathDistribution(about)
        for more in map(Requirement, told.requires or ()):
            asked = [
                more.marker is None or more.marker.evaluate({**there, "extra": e}) for _, e in new
            ]
            if any(asked):
                waiting.append(more)
    return here - aside


def _files(root):
    """The project's own files, from its folder."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not _ASIDE.fullmatch(name))
        paths = (os.path.join(place, file) for file in sorted(files))
        yield from (os.path.relpath(path, root) for path in paths if os.path.isfile(path))


def _data(archive, root, overrides):
    """Add the files that parameters and variables name; tell how to name them there."""
    told, variables = [], {}
    for name, value in overrides:
        typed = of_user(value, root)
        path = root / typed
        paths = named(str(path), root) if typed else []  # "" is none, and not the project
        if path in paths:
            _add(archive, path, f"data/{name}/{path.name}")
            value = f"{{data}}/{name}/{path.name}"
        elif paths:  # of a pattern, which names them there, too
            head, pattern = _split(path)
            for path in paths:
                _add(archive, path, f"data/{name}/{path.relative_to(head)}")
            value = f"{{data*}}/{name}/{pattern}"
        told.append((name, value))
    for name, value in os.environ.items():
        if name.startswith("OTLIB_") and value and Path(value).exists():
            variables[name] = f"data/{name}/{Path(value).name}"
            _add(archive, Path(value), variables[name])
    return {"overrides": told, "variables": variables}


def _split(pattern):
    """The folder that is the same for all that a pattern names, and the rest of the pattern."""
    parts = pattern.parts
    plain = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:plain]), "/".join(parts[plain:])


def _add(archive, path, name):
    """Add a file, or a folder with what lies in it and behind its links, each folder once."""
    archive.add(path, name, recursive=False)
    if path.is_dir():
        for file in walk(path):
            archive.add(path / file, f"{name}/{file}")
