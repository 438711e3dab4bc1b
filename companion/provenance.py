"""Where a run comes from: code, versions, machine, memory."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

MIME = "application/vnd.companion.provenance+json"
PACKAGES = ("torch", "numpy", "scikit-image", "matplotlib", "POT", "pykeops")

# The last cell of every run. nbval must not compare it: memory differs from run to run.
CELL = "from companion.provenance import report\n\nreport()"
TAGS = ["provenance", "remove-cell", "nbval-skip"]


def versions(packages=PACKAGES):
    """Return {name: version} of python and of the packages; None for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def report():
    """Display, from inside a kernel, what the kernel used: device, threads, memory, versions."""
    from IPython.display import display

    display({MIME: kernel_facts()}, raw=True)


def kernel_facts():
    """Return what this process used so far.

    device: name of the GPU if CUDA was used, else of the CPU; threads: of torch if imported;
    peak_memory_mib, peak_cuda_mib: MiB, the latter None without CUDA; versions: see `versions`;
    assets: data and weights that were opened, see `otlib.models.used`.
    """
    # a notebook that did without is not made to import them
    torch, models = sys.modules.get("torch"), sys.modules.get("otlib.models")
    cuda = torch is not None and torch.cuda.is_initialized()
    return {
        "device": torch.cuda.get_device_name() if cuda else cpu_model(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "peak_memory_mib": round(_peak_memory() / 2**20),
        "peak_cuda_mib": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
        "versions": versions(),
        "assets": models.used() if models else [],
    }


def cpu_model():
    """Return the processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def otlib_hash():
    """Return the SHA-256 of otlib's sources, as text: it tells whether otlib has changed since."""
    folder = Path(importlib.util.find_spec("otlib").origin).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def commit(root):
    """Return {"commit", "dirty"} of the checkout at root; both None where root is not one."""
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if os.path.realpath(top) != os.path.realpath(root):
            return {"commit": None, "dirty": None}
        return {
            "commit": _git(root, "rev-parse", "HEAD"),
            "dirty": bool(_git(root, "status", "--porcelain")),
        }
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, no repository, no commit
        return {"commit": None, "dirty": None}


def _git(root, *arguments):
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def _peak_memory():
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
