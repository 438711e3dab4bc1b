"""Seconds that a computation takes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def seconds(device: str | torch.device) -> float:
    """Read a clock: the CPU seconds of this thread, or with a GPU those that pass until it is done.

    device: of torch. Returns a float, of which only differences mean something.
    """
    if torch.device(device).type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(
    call: Callable[..., Any], device: str | torch.device, spent: list[float]
) -> Callable[..., Any]:
    """A function that does what another does and appends the seconds it takes to a list.

    call: function. device: as in `seconds`. spent: list.
    """

    def run(*given):
        before = seconds(device)
        result = call(*given)
        spent.append(seconds(device) - before)
        return result

    return run


def typical(call: Callable[[], object], repeats: int = 3) -> float:
    """Median of the seconds that pass while a function runs.

    call: function of no argument, which waits for what it computes. repeats: how often it runs.
    """
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
