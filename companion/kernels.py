"""Warm kernels: processes forked from one that has imported the heavy packages already.

Each kernel is a process of its own, as always; only the imports are shared. This file is also the
program of the process they are forked from, and so imports nothing of the project.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# A kernel finds them imported. Not otlib or companion: a kernel has to see them as they are now.
HEAVY = ("torch", "matplotlib.pyplot", "scipy.special")


def manager(folder: Path, preload: Iterable[str], variables: dict[str, str]) -> type:
    """Return the class of jupyter_client's kernel manager that starts kernels warm.

    folder: the kernel's working folder; preload: names of modules that the kernel is to find
        imported; variables: {name: text}, its environment beyond this process's own.
    On another system than Linux a fork is not safe, and the kernels start cold.
    """
    from jupyter_client import AsyncKernelManager

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **options):  # type: ignore[override]  # theirs is awaited, too
            if self.provisioner is None and sys.platform == "linux":
                warm = _provisioner()(
                    kernel_id=self.kernel_id or "", kernel_spec=self.kernel_spec, parent=self
                )
                warm.preload = preload
                self.provisioner = warm
            options |= {"cwd": str(folder), "env": {**os.environ, **variables}}
            await super().start_kernel(**options)

    return Manager


@functools.cache
def _kernel():
    import psutil

    class Kernel(psutil.Process):
        """A process that is not our child, with what is used of a subprocess.Popen."""

        stdin = stdout = stderr = None

        def poll(self):
            try:
                runs = self.is_running() and self.status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:  # it ended between the two questions
                return 0
            return None if runs else 0

        def send_signal(self, sig):
            with contextlib.suppress(psutil.NoSuchProcess):  # as with a Popen that has ended
                super().send_signal(sig)

    return Kernel


@functools.cache
def _provisioner():
    import psutil
    from jupyter_client.provisioning import LocalProvisioner

    class Provisioner(LocalProvisioner):
        preload: Iterable[str] = ()
        process: Any  # of _kernel(), where jupyter_client has a Popen

        async def launch_kernel(self, cmd, **options):
            request = {
                "arguments": cmd[cmd.index("-f") :],
                "folder": options["cwd"],
                "environment": options["env"],
                "preload": list(self.preload),
            }
            identity = _fork(request)
            try:
                kernel = _kernel()(identity)
            except psutil.NoSuchProcess:
                raise RuntimeError(f"kernel {identity} died before replying") from None
            self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
            self.cwd = options["cwd"]
            return self.connection_info

    return Provisioner


_lock = threading.Lock()


def _fork(request):
    """Ask the process of warm kernels, started at the first need, for one; return its id."""
    with _lock:
        server = _server()
        if server.poll() is not None:  # killed
            _server.cache_clear()
            server = _server()
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            answer = server.stdout.readline()
        except BaseException:  # interrupted: the next one would be told of this one's kernel
            _server.cache_clear()
            server.kill()  # and with it go its kernels
            server.wait()
            server.stdout.close()
            raise
    if not answer:
        raise RuntimeError("the process that kernels are forked from died")
    return int(answer)


@functools.cache
def _server():
    # as ipykernel would set it, but before matplotlib looks
    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", **os.environ}
    # Dask sets it for its workers: with it glibc gives each tensor of more than 128 KiB fresh pages
    # from the kernel and hands them back, which costs as much time as what is computed in them
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    server = subprocess.Popen(
        [sys.executable, __file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the one who asked
    )
    atexit.register(_end, server)
    return server


def _end(server):
    """Let the process of warm kernels end and be waited for, else Python warns of it at its end."""
    with contextlib.suppress(BrokenPipeError):
        server.stdin.close()  # of which its loop takes leave
    server.wait()
    server.stdout.close()


def _serve():
    """Fork a kernel for each line of stdin, until the one who writes them is gone."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    from ipykernel import kernelapp

    for line in sys.stdin:
        request = json.loads(line)
        for name in request["preload"]:
            try:
                importlib.import_module(name)
            except ImportError:  # the notebook's to report, where it needs it
                continue
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the threads of OpenBLAS, which stops them to fork
            kernel = os.fork()
        if kernel == 0:
            os.close(answers)
            _become(kernelapp, request, parent)
        try:
            os.write(answers, f"{kernel}\n".encode())
        except BrokenPipeError:  # who asked is gone, and so will the kernel be
            return


def _become(kernelapp, request, parent):
    """Turn the forked process into the kernel that was asked for."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # a worker of a sweep blocks it
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.environ.clear()
    # POT imports geomloss where it is, and KeOps would then say on the page that it has no CUDA
    os.environ.update({"KEOPS_VERBOSE": "0"} | request["environment"])
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all kernels would draw alike
    sys.argv = ["ipykernel_launcher.py", *request["arguments"]]
    # it ends when the process of warm kernels does, and that one with who asked
    arguments = [*request["arguments"], f"--IPKernelApp.parent_handle={parent}"]
    try:
        kernelapp.launch_new_instance(argv=arguments)
    finally:
        os._exit(1)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file
    _serve()
