"""Seconds and peak memory of a call; also used inside ott-jax's own interpreter."""

import ctypes
import gc
import sys
import threading
import time

import psutil


def measure(run, memory=False):
    """Call `run` once.

    Returns (CPU seconds of this process, MiB above the start at the peak or None, the result).
    With memory=True the resident memory is sampled meanwhile, which disturbs the seconds. In a
    process that uses CUDA these are wall seconds and the GPU's memory.
    """
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        return _measure_on_gpu(run, memory)
    if not memory:
        start = time.process_time()
        result = run()
        return time.process_time() - start, None, result
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):  # else freed memory stays and hides what is used
        ctypes.CDLL(None).malloc_trim(0)
    process, stop = psutil.Process(), threading.Event()
    base = peak = process.memory_info().rss

    def watch():
        nonlocal peak
        while not stop.wait(0.0005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    try:
        result = run()
    finally:
        stop.set()
        watcher.join()
    return time.process_time() - start, (peak - base) / 2**20, result


def _measure_on_gpu(run, memory):
    """As `measure`, with wall seconds and the memory of the GPU."""
    torch = sys.modules["torch"]
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    base, start = torch.cuda.memory_allocated(), time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, (torch.cuda.max_memory_allocated() - base) / 2**20 if memory else None, result
