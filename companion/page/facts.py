"""What a kernel used: device, memory, versions, data and weights."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from typing import Any

MIME = "application/vnd.companion.provenance+json"
PACKAGES = ("torch", "numpy", "scikit-image", "matplotlib", "POT", "pykeops")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Return {name: version} of python and of the packages; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def report() -> None:
    """Display, from inside a kernel, what the kernel used: device, threads, memory, versions."""
    from IPython.display import display

    display({MIME: kernel_facts()}, raw=True)


def kernel_facts() -> dict[str, Any]:
    """Return what this process used so far.

    device: name of the GPU if CUDA was used, else of the CPU; threads: of torch if imported;
    peak_memory_mib, peak_cuda_mib: MiB, the latter None without CUDA; versions: see `versions`;
    assets: data and weights that were opened, see `otlib.assets.used`.
    """
    torch, opened = sys.modules.get("torch"), []  # a notebook that did without need not have it
    if "otlib.assets.used" in sys.modules:
        from otlib.assets.used import used

        opened = used()
    cuda = torch.cuda if torch and torch.cuda.is_initialized() else None
    return {
        "device": cuda.get_device_name() if cuda else cpu_model(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "peak_memory_mib": round(_peak_memory() / 2**20),
        "peak_cuda_mib": round(cuda.max_memory_allocated() / 2**20) if cuda else None,
        "versions": versions(),
        "assets": opened,
    }


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _peak_memory():
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
