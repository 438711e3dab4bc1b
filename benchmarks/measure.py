"""CPU seconds and peak memory of a call; also used inside ott-jax's own interpreter."""

import ctypes
import gc
import threading
import time

import psutil


def measure(run, memory=False):
    """Call `run` once.

    Returns (CPU seconds of this process, MiB above the start at the peak or None, the result).
    With memory=True the resident memory is sampled meanwhile, which disturbs the seconds.
    """
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
