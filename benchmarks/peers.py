"""The peers, each in its best documented way. One function a peer; what it raises is recorded.

SOFTMIN: {name: function (problem, h) -> call}; call(memory) -> (seconds, extra MiB, f).
SOLVE: {name: (function (problem, effort) -> call, efforts)}; call -> (seconds, extra MiB, gradient
in x). Efforts are iterations at temperature eps, rising. SOFTMIN_CUDA, SOLVE_CUDA: more on a GPU.
"""

import json
import math
import os
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import measure
from otlib import sinkhorn
from otlib.softmin import softmin

LADDER = (1, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
OTT_LADDER = (10, 20, 40, 60, 80, 120, 160, 240, 320)


def otlib_softmin(problem, h, backend="auto"):
    return _local(lambda: softmin(problem.x, problem.y, h, problem.eps, backend=backend))


def otlib_torch_softmin(problem, h):
    return otlib_softmin(problem, h, "torch")


def otlib_keops_softmin(problem, h):
    return otlib_softmin(problem, h, "keops")


def otlib_attention_softmin(problem, h):
    return otlib_softmin(problem, h, "attention")


def keops_softmin(problem, h):
    return _local(lambda: _keops(problem.x, problem.y, h, problem.eps))


def geomloss_softmin(problem, h):
    from geomloss._legacy.sinkhorn_samples import softmin_tensorized
    from geomloss._legacy.utils import squared_distances

    cost = squared_distances(problem.x[None], problem.y[None])
    scaled = (h / problem.eps)[None]
    return _local(lambda: softmin_tensorized(problem.eps, cost, scaled)[0], cost)


def pot_softmin(problem, h):
    import ot

    x, y, bias = problem.x.numpy(), problem.y.numpy(), h.numpy()
    cost = ot.dist(x, y)
    logsumexp = ot.backend.get_backend(x).logsumexp  # what ot.bregman.sinkhorn_log iterates
    call = lambda: -problem.eps * logsumexp((bias - cost) / np.float32(problem.eps), 1)
    return _local(call, cost)


def flash_softmin(problem, h):
    from flash_sinkhorn.kernels.sinkhorn_flashstyle_sqeuclid import flashsinkhorn_lse

    x, y, eps, *_ = problem

    def call():
        bias = (h - y.square().sum(1)) / eps
        return x.square().sum(1) + flashsinkhorn_lse(x, y, bias, eps, allow_tf32=False)

    return _local(call)


def ott_softmin(problem, h, how="online"):
    return _ott("softmin", problem, how, h=h)


def ott_full_softmin(problem, h):
    return ott_softmin(problem, h, "full")


def otlib_solve(problem, effort, backend="auto"):
    def call():
        x = problem.x.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sinkhorn.ConvergenceWarning)
            solution = sinkhorn.solve(
                x, problem.y, eps=problem.eps, rho=(math.inf, problem.rho),
                tol=0.0, max_iter=effort, backend=backend,
            )  # fmt: skip
        solution.value.backward()
        return x.grad

    return _local(call)


def otlib_torch_solve(problem, effort):
    return otlib_solve(problem, effort, "torch")


def otlib_keops_solve(problem, effort):
    return otlib_solve(problem, effort, "keops")


def keops_solve(problem, effort):
    """Annealed alternation written with LazyTensors, as KeOps' own tutorials do."""
    x, y, eps, rho, *_ = problem

    def call():
        t, g, left = 1.0, y.new_zeros(len(y)), effort
        while left:
            f = _keops(x, y, g - t * math.log(len(y)), t)
            g = _keops(y, x, f - t * math.log(len(x)), t) / (1 + t / rho)
            left -= t == eps
            t = max(eps, 0.7 * t)
        return 2 / len(x) * (x - _keops(x, y, g, eps, barycentre=True))

    return _local(call)


def geomloss_solve(problem, effort):
    from geomloss import SamplesLoss

    def call():
        x = problem.x.clone().requires_grad_()
        loss = SamplesLoss(
            "sinkhorn", p=2, blur=math.sqrt(2 * problem.eps), debias=False, backend="tensorized",
            reach=(None, math.sqrt(2 * problem.rho)),
        )  # fmt: skip
        loss(x, problem.y).backward()  # cost |x - y|^2 / 2
        return 2 * x.grad

    return _local(call)


def pot_solve(problem, effort):
    import ot

    x, y = (cloud.double().numpy() for cloud in problem[:2])

    def call():
        plan = ot.unbalanced.sinkhorn_unbalanced(
            np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), ot.dist(x, y),
            problem.eps, (math.inf, problem.rho), method="sinkhorn_stabilized", numItermax=effort,
        )  # fmt: skip
        call.note = f"mass of the plan {plan.sum():.1e}, should be 1"
        return torch.from_numpy(2 * (plan.sum(1)[:, None] * x - plan @ y))

    return _local(call)


def flash_solve(problem, effort):
    """Its own annealing, as its option eps_list has it, in full float32."""
    from flash_sinkhorn import SamplesLoss

    eps, rho = problem.eps, problem.rho

    def call():
        x = problem.x.clone().requires_grad_()
        temperatures = np.geomspace(1, eps, 1 + math.ceil(math.log(eps, 0.7)))
        loss = SamplesLoss(
            "sinkhorn", blur=math.sqrt(eps), reach_y=math.sqrt(rho), debias=False,
            allow_tf32=False, eps_list=[*temperatures.tolist(), *[eps] * effort],
        )  # fmt: skip
        loss(x, problem.y).backward()
        return x.grad

    return _local(call)


def ott_momentum_solve(problem, effort):
    return _ott("solve", problem, "momentum", effort)


def ott_anderson_solve(problem, effort):
    return _ott("solve", problem, "anderson", effort)


SOFTMIN = {
    "otlib": otlib_softmin,
    "otlib, torch backend": otlib_torch_softmin,
    "otlib, attention backend": otlib_attention_softmin,
    "otlib, KeOps backend": otlib_keops_softmin,
    "KeOps LazyTensor": keops_softmin,
    "geomloss tensorized, cost given": geomloss_softmin,
    "POT numpy, cost given": pot_softmin,
    "ott-jax online": ott_softmin,
    "ott-jax full matrix": ott_full_softmin,
}
SOLVE = {
    "otlib": (otlib_solve, LADDER),
    "otlib, torch backend": (otlib_torch_solve, LADDER),
    "otlib, KeOps backend": (otlib_keops_solve, (1, 24, 48)),
    "KeOps LazyTensor, annealed": (keops_solve, (1, 8, 32, 128, 512)),
    "geomloss, one-sided reach": (geomloss_solve, (1,)),
    "POT sinkhorn_stabilized, (inf, rho)": (pot_solve, (10, 100)),
    "ott-jax, momentum 1.5": (ott_momentum_solve, OTT_LADDER),
    "ott-jax, Anderson": (ott_anderson_solve, OTT_LADDER),
}

# these have no way to run on a CPU
SOFTMIN_CUDA = {"flash-sinkhorn": flash_softmin}
SOLVE_CUDA = {"flash-sinkhorn, annealed": (flash_solve, LADDER)}


def _local(call, given=None):
    """Measure a call of this interpreter; a cost matrix that was given counts as memory."""
    held = 0 if given is None else given.nbytes / 2**20

    def measured(memory=False):
        seconds, extra, result = measure(call, memory)
        measured.note = getattr(call, "note", "")
        return seconds, None if extra is None else extra + held, torch.as_tensor(result)

    return measured


def _keops(x, y, h, eps, barycentre=False):
    from pykeops.torch import LazyTensor

    x_i, y_j = LazyTensor(x[:, None, :]), LazyTensor(y[None, :, :])
    score = (LazyTensor(h[None, :, None]) - x_i.sqdist(y_j)) / eps
    if barycentre:
        return score.sumsoftmaxweight(y_j, 1)
    return -eps * score.logsumexp(1).view(-1)


class Ott:
    """ott-jax's interpreter, BENCH_JAX_PYTHON, kept open so that its turns interleave with ours."""

    process = None

    @classmethod
    def ask(cls, request):
        """The worker's reply. Raises ModuleNotFoundError without it, RuntimeError of its errors."""
        python = os.environ.get("BENCH_JAX_PYTHON")
        if not python:
            raise ModuleNotFoundError("BENCH_JAX_PYTHON names no interpreter with ott-jax")
        if cls.process is None:
            cls.folder = tempfile.TemporaryDirectory()
            one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            cls.process = subprocess.Popen(
                [python, "-m", "benchmarks.ott_worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                cwd=Path(__file__).parents[1],
                env={**os.environ, "XLA_FLAGS": one, "JAX_PLATFORMS": "cpu"},
            )  # fmt: skip
        cls.process.stdin.write(json.dumps(request) + "\n")
        cls.process.stdin.flush()
        line = cls.process.stdout.readline()
        if not line:
            raise RuntimeError(f"ott-jax's interpreter ended with {cls.process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    @classmethod
    def close(cls):
        """End the worker, if there is one."""
        if cls.process is not None:
            cls.process.communicate()
            cls.process = None
            cls.folder.cleanup()


def _ott(task, problem, how, effort=0, h=None):
    Ott.ask({"task": "versions"})
    clouds = {"x": problem.x.numpy(), "y": problem.y.numpy(), "rho": problem.rho}
    file = Path(Ott.folder.name) / f"{task}-{how}-{len(problem.x)}-{effort}"
    np.savez(f"{file}.npz", h=np.zeros(1) if h is None else h.numpy(), **clouds)
    request = {"task": task, "how": how, "eps": problem.eps, "effort": effort}
    request |= {"clouds": f"{file}.npz", "result": f"{file}.npy"}

    def measured(memory=False):
        reply = Ott.ask(request)
        return reply["seconds"], reply["extra"], torch.from_numpy(np.load(f"{file}.npy"))

    measured.note = "memory as XLA plans it" if task == "softmin" else ""
    return measured
