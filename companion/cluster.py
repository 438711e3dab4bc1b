"""Where many runs are done: on this machine, on a running Dask cluster, on SLURM."""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from companion import keys
from companion.errors import UsageError
from companion.run import Plan, RunFailed, execute
from companion.slurm import read

GPU = {"GPU": 1}  # the resource that a worker offers and a point on a GPU takes
_PATIENCE = 10  # seconds for a scheduler to answer
_NO_PAGES = {"dashboard": False, "dashboard_address": ":0"}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def local(workers: int | None, most: int, gpu: bool) -> Iterator[Any]:
    """Give a Dask client of processes on this machine.

    workers: their number, None for as many as there are cores, or GPUs if the sweep is for those,
        but not over `most`. The cores are shared out among the workers as threads of torch, unless
        OMP_NUM_THREADS is set. gpu: whether each worker offers a GPU; they take turns at them.
    Raises UsageError where a GPU is asked for and there is none.
    """
    from dask.system import CPU_COUNT
    from distributed import Client, Nanny, Scheduler, SpecCluster

    gpus = _gpus() if gpu else []
    workers = workers or min(most, len(gpus) or CPU_COUNT)
    threads = {name: str(max(1, CPU_COUNT // workers)) for name in _THREADS}
    threads |= {name: os.environ[name] for name in _THREADS if name in os.environ}
    specification = {}
    for index in range(workers):
        options: dict[str, Any] = {
            "nthreads": 1,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
        }
        # Dask's profiler keeps the stack of each second: 0.6 MiB a point, for nobody
        options |= {"config": {"distributed.worker.profile.enabled": False}, "env": threads}
        if gpus:
            options["env"] = {**threads, "CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
            options["resources"] = GPU
        specification[index] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", **_NO_PAGES}}
    _quiet()
    with ExitStack() as stack:
        with _ctrl_c_held():
            cluster = SpecCluster(specification, scheduler, silence_logs=logging.CRITICAL)
            stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


@contextmanager
def remote(address: str, gpu: bool) -> Iterator[Any]:
    """Give a client of a running Dask cluster, whose workers see this project's folder.

    address: of its scheduler, such as tcp://HOST:8786. gpu: whether workers have to offer one.
    Raises UsageError where no scheduler answers there, where a worker has other code, where no
    worker offers a GPU.
    """
    from distributed import Client

    _quiet()
    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"--scheduler {address!r}: no Dask scheduler answers there within {_PATIENCE} s"
        ) from error
    with client:
        same_code(client)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if gpu and workers and not any(worker["resources"].get("GPU") for worker in workers):
            raise UsageError(
                f"--scheduler {address!r}: no worker offers a GPU; start one with --resources GPU=1"
            )
        yield client


def same_code(client: Any) -> None:
    """Raise UsageError, naming them, where workers have other code than this process."""
    try:
        found = client.run(keys.whole)
    except ModuleNotFoundError as error:
        raise UsageError(f"a worker has no package {error.name!r}: install the project") from error
    here = keys.whole()
    others = [f"{worker} ({digest[:12]})" for worker, digest in found.items() if digest != here]
    if others:
        raise UsageError(f"other code than here ({here[:12]}) on worker {', '.join(others)}")


@contextmanager
def slurm(path: Path, gpu: bool) -> Iterator[Any]:
    """Give a client of workers that SLURM starts, as a YAML file says; see book/slurm.yaml.

    path: Path. gpu: whether the workers have to offer one.
    Raises UsageError as `slurm_cluster` does and where there is no SLURM.
    """
    from distributed import Client

    if shutil.which("sbatch") is None:
        raise UsageError("--slurm: no sbatch on this machine; --dry-run shows the job script")
    with slurm_cluster(path, gpu) as (cluster, jobs), Client(cluster) as client:
        try:
            _submit(cluster, jobs)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"--slurm {str(path)!r}: {error}") from error
        print(f"submitted {jobs} jobs to SLURM; the sweep starts when one does", file=sys.stderr)
        yield client


@contextmanager
def slurm_cluster(path: Path, gpu: bool) -> Iterator[tuple[Any, int]]:
    """Give the SLURMCluster, no job submitted yet, and the number of jobs of a YAML file.

    path: Path of a file as book/slurm.yaml. gpu: whether its workers have to offer one.
    Raises UsageError as `slurm.read` does, and for a file without a GPU where it needs one.
    """
    from dask_jobqueue import SLURMCluster

    where, settings = f"--slurm {str(path)!r}", read(path)
    if gpu and "GPU" not in " ".join(settings.worker_extra_args or ()):
        raise UsageError(
            f"{where}: a GPU is asked for, needs worker_extra_args: [--resources GPU=1]"
        )
    asked = settings.model_dump(exclude={"jobs"}, exclude_none=True)
    _quiet()
    try:
        cluster = SLURMCluster(silence_logs="critical", scheduler_options=_NO_PAGES, **asked)
    except (TypeError, ValueError, RuntimeError) as error:  # an interface that is not here
        raise UsageError(f"{where}: {error}") from error
    with cluster:
        yield cluster, settings.jobs


def _submit(cluster, jobs):
    """Submit the jobs; raise what sbatch says where it refuses, which dask-jobqueue only logs."""
    from distributed import Status

    cluster.scale(jobs=jobs)
    while len(cluster.workers) < jobs:
        time.sleep(0.1)
    refused = [job for job in cluster.workers.values() if job.status == Status.created]
    for job in refused:
        job.status = Status.failed  # else the cluster does not close
    for job in refused:
        cluster.sync(job.start)


def on_gpu(plans: Iterable[Plan]) -> bool:
    """Whether one of the plans asks for a GPU."""
    return any(str(todo.parameters.get("device")).startswith("cuda") for todo in plans)


def performed(
    client: Any, plans: Iterable[Plan], keep: Callable[[Plan], Path]
) -> Iterator[tuple[Plan, str | None]]:
    """Run plans on a cluster; yield (plan, None or what went wrong in a line) as they end.

    client: of Dask. plans: of Plan. keep: function of a plan, the folder for its notebook if it
        fails.
    Raises OSError where results cannot be kept, RunFailed where the cluster is lost.
    """
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    code, futures = keys.whole(), {}
    for todo in plans:
        resources = GPU if on_gpu([todo]) else None
        where = keep(todo).absolute()
        future = client.submit(perform, todo, where, code, resources=resources, pure=False)
        futures[future] = todo
    for future in as_completed(futures):
        if future.status in ("cancelled", "lost"):
            raise RunFailed("the scheduler is gone; what is finished is kept, run again")
        error = future.exception()
        if isinstance(error, OSError):  # a full disk, say: the next one would fare no better
            raise error
        if isinstance(error, KilledWorker):
            error = "its worker died again and again, perhaps out of memory"
        yield futures[future], error and first_line(error)


def first_line(error: object) -> str:
    """What an error says in one line; its kind where it says nothing, as one of memory does."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def perform(todo: Plan, keep: Path, code: str) -> None:
    """Run one point, on a worker.

    todo: Plan; keep: folder for the notebook if it fails; code: the driver's, by `keys.whole`.
    Raises RunFailed as `execute` does, and where this worker has other code.
    """
    if keys.whole() != code:  # one that joined later
        from distributed import get_worker

        raise RunFailed(f"{todo.notebook.name}: other code on worker {get_worker().address}")
    execute(todo, keep, None)


@contextmanager
def _ctrl_c_held():
    """Hold Ctrl-C back, for good in the threads and processes that are started meanwhile.

    It reaches all that a terminal started, and is for this process alone, which closes the others.
    """
    resource_tracker.ensure_running()  # whose start would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _gpus():
    """Names of the GPUs, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    if not torch.cuda.is_available():
        raise UsageError("device cuda: this machine has none that torch can use")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]


def _quiet():
    """What Dask logs would break the progress bar; what matters comes back as an error."""
    import distributed  # sets the levels of its loggers

    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == distributed.__name__:
            logging.getLogger(name).setLevel(logging.CRITICAL)
