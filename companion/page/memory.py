"""Memory that a call of torch takes."""

import os
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak(call: Callable[[], object]) -> float:
    """Most memory that torch holds during a call, beyond what it held before: MiB.

    call: function of no argument. On a CPU all that torch allocates counts, by its profiler; with
    CUDA what lies on the device.
    Returns a float.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Kineto, which measures, announces each start and stop at its loudest level, 5, on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    raw = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in raw if e.name() == "[memory]")
    held = most = 0
    for _, size in changes:
        held += size
        most = max(most, held)
    return most / 2**20
