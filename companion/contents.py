"""What a folder holds, by content: each file is read once, not at each plan."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from tqdm import tqdm

from companion.files import walk, write_aside

SETTLED = 2  # seconds after which a file written once more has another time, on any file system


def contents(folder: Path, kept: Path) -> str:
    """SHA-256, as text, of the names and contents of the files below a folder, behind links too.

    folder: Path; kept: folder where the hashes of single files are remembered, with the sizes and
    times that the files had. A copy of a folder and one mounted anew hash alike. A file that
    cannot be read counts by its size and time.
    """
    memory = kept / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}.json"
    known = _remembered(memory)
    told = {file: _facts(folder / file) for file in walk(folder)}
    found = {file: known[file] for file in told if known.get(file, [])[:3] == told[file]}
    new = [file for file in told if file not in found]
    total = sum(told[file][0] for file in new)
    settled = time.time_ns() - SETTLED * 10**9
    remember = dict(found)
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"hash {folder.name}", delay=2) as bar:
        for file in new:
            found[file] = [*told[file], _read(folder / file, told[file])]
            if max(told[file][1:]) < settled:
                remember[file] = found[file]
            bar.update(told[file][0])
    if remember != known:
        with contextlib.suppress(OSError):  # then the files are read again: slower, not wrong
            write_aside(memory, json.dumps(remember))
    lines = [f"{file} {found[file][3]}" for file in told]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _facts(path):
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _read(path, facts):
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{error.strerror}, {facts[0]} bytes, {facts[1]}"


def _remembered(memory):
    """{file: [size, two times, SHA-256]}; empty where nothing, or nothing whole, is there."""
    try:
        known = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    known = known.items() if isinstance(known, dict) else ()
    return {file: told for file, told in known if isinstance(told, list) and len(told) == 4}
