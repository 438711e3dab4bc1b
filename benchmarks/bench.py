"""Measure otlib beside its peers and write one JSON file: `python -m benchmarks.bench --out FILE`.

All times are CPU seconds of one thread (wall seconds on a GPU), medians; the peers take turns in
each repeat, so that what else the machine does falls on all of them alike. A peer that has no way
to run on a GPU is recorded there with its error.
"""

import argparse
import functools
import json
import math
import statistics
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import peers
from benchmarks.measure import measure
from benchmarks.problems import exact_softmin, image_gradient, problem
from companion import keys, provenance
from companion.files import write_aside
from companion.page import facts
from otlib import sinkhorn
from otlib.softmin import softmin

TARGETS = (0.1, 0.01, 0.001)  # errors of the image gradient, relative
SIZES = {
    "full": dict(softmin=(120, 125, 4000), solve=(75, 80, 2000), side=64, m=1024, budget=40.0),
    # the largest clouds of the papers, for a GPU
    "gpu": dict(softmin=(251, 251, 10000), solve=(75, 80, 2000), side=64, m=1024, budget=40.0),
    "smoke": dict(softmin=(20, 25, 200), solve=(15, 20, 100), side=12, m=64, budget=1.0),
}


def bench(size="full", repeats=5, device="cpu"):
    """Run all measurements of a size, one of SIZES; return what the JSON file holds."""
    settings, start = SIZES[size], time.perf_counter()
    clouds = functools.partial(problem, device=device)
    torch.set_num_threads(1)
    checkout = provenance.commit(Path(__file__).parents[1])  # before anything is written
    try:
        softmins = softmin_rows(clouds(*settings["softmin"]), repeats)
        solves, reference = solve_rows(clouds(*settings["solve"]), repeats, settings["budget"])
        scaling = scaling_rows(clouds, settings["side"], settings["m"], repeats)
        versions = _ott_versions()
    finally:
        peers.Ott.close()
    told = facts.kernel_facts()
    told["versions"] |= facts.versions(("geomloss", "flash-sinkhorn")) | versions
    return {
        "provenance": {
            **checkout,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - start, 1),
            "code": keys.imported("otlib.sinkhorn", "otlib.semidual"),
            "kind": device,
            "size": size,
            **told,
        },
        "reference": reference,
        "softmin": softmins,
        "solve": solves,
        "scaling": scaling,
    }


def softmin_rows(p, repeats):
    """One soft-min by every peer, and one torch.mm of the same shape, in turns."""
    # the bias of a first half-step: of the size that a solve meets
    h = softmin(p.y, p.x, p.x.new_zeros(len(p.x)), p.eps) - p.eps * math.log(len(p.y))
    exact, shared = exact_softmin(p, h), {"n": len(p.x), "m": len(p.y), "d": p.x.shape[1]}
    transposed = p.y.T.contiguous()
    out = p.x.new_empty(len(p.x), len(p.y))  # fresh memory would slow the floor itself down
    floor = lambda p, h: peers._local(lambda: torch.mm(p.x, transposed, out=out)[:, 0])
    ways = {"torch.mm": floor}
    rows, calls = {}, {}
    ways |= peers.SOFTMIN | (peers.SOFTMIN_CUDA if p.x.is_cuda else {})
    for name, prepare in ways.items():
        rows[name] = {"peer": name, **shared, "eps": p.eps}
        with _recorded(rows[name]):
            call = prepare(p, h)
            call()  # compiles, and touches the memory that stays
            _, extra, f = call(memory=True)
            error = float((f.double() - exact).abs().max()) / p.eps
            rows[name] |= {"error_over_eps": None if name == "torch.mm" else _strict(error)}
            rows[name] |= {"extra_mib": round(extra, 1), "note": getattr(call, "note", "")}
            calls[name] = call
    for name, times in _in_turns(calls, repeats, "soft-min").items():
        rows[name] |= {"cpu_seconds": statistics.median(times), "repeats": len(times)}
    floor = rows["torch.mm"]["cpu_seconds"]
    for name in calls:
        rows[name]["over_mm"] = rows[name]["cpu_seconds"] / floor
    return list(rows.values())


def solve_rows(p, repeats, budget):
    """CPU seconds at which each solver's image gradient comes within TARGETS of a reference.

    A solver climbs its ladder of efforts until the last target is met or `budget` CPU seconds are
    spent; the rungs that met a target first are then repeated, all solvers in turns.
    """
    exact, reference = _reference(p)
    rows, calls = {}, {}
    solvers = peers.SOLVE | (peers.SOLVE_CUDA if p.x.is_cuda else {})
    for name, (prepare, ladder) in tqdm(solvers.items(), desc="solve"):
        row = rows[name] = {"peer": name, "n": len(p.x), "m": len(p.y), "d": p.x.shape[1]}
        row |= {"eps": p.eps, "rho": p.rho, "ladder": [], "note": ""}
        with _recorded(row):
            for effort in ladder:
                call = prepare(p, effort)
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    seconds, _, gradient = call()
                said = {f'warns "{str(warning.message).split(".")[0]}"' for warning in told}
                row["note"] = "; ".join(filter(None, [call.note, *sorted(said)]))
                error = image_gradient(p, torch.nan_to_num(gradient.double(), posinf=0, neginf=0))
                error = float((error - exact).norm() / exact.norm())
                if not gradient.isfinite().all():
                    error = math.inf
                step = {"effort": effort, "gradient_error": _strict(error), "cpu_seconds": seconds}
                row["ladder"].append(step)
                met = [target for target in TARGETS if error <= target]
                known = {target for other, target in calls if other == name}
                calls |= {(name, target): (call, step) for target in met if target not in known}
                spent = sum(step["cpu_seconds"] for step in row["ladder"])
                # the next rung costs more than this one
                if len(met) == len(TARGETS) or spent + seconds > budget:
                    break
    rungs = {}  # one rung may meet several targets
    for (name, _), (call, step) in calls.items():
        # what takes long is repeated less, and says so in its number of repeats
        more = min(repeats - 1, int(budget / 3 / max(step["cpu_seconds"], 1e-9)))
        rungs[name, step["effort"]] = (call, step, more)
    for turn in range(repeats - 1):
        now = {key: call for key, (call, _, more) in rungs.items() if turn < more}
        for key, times in _in_turns(now, 1, f"repeat {turn + 1}").items():
            rungs[key][1].setdefault("again", []).extend(times)
    for _, step, _ in rungs.values():
        times = [step["cpu_seconds"], *step.pop("again", [])]
        step |= {"cpu_seconds": statistics.median(times), "repeats": len(times)}
    for name, row in rows.items():
        met = {target: calls.get((name, target)) for target in TARGETS}
        row["reached"] = {f"{t:g}": found and found[1]["cpu_seconds"] for t, found in met.items()}
    return list(rows.values()), reference


def scaling_rows(problem, side, m, repeats):
    """otlib alone: one soft-min over N, M, d and a solve over eps, rho, with fitted exponents."""
    series = {
        ("softmin", "N"): {side * side * k: problem(side, side * k, m) for k in (1, 2, 4)},
        ("softmin", "M"): {m * k: problem(side, side, m * k) for k in (1, 2, 4, 8)},
        ("softmin", "d"): {s * s: problem(side, side, m, size=s) for s in (4, 6, 9, 13)},
        ("solve", "eps"): {e: problem(side // 2, side // 2, m // 2, eps=e) for e in EPS},
        ("solve", "rho"): {r: problem(side // 2, side // 2, m // 2, rho=r) for r in RHO},
    }
    rows = []
    for (what, over), points in series.items():
        run, counts = (_one_softmin if what == "softmin" else _one_solve), {}
        calls = {
            value: functools.partial(measure, functools.partial(run, p, value, counts))
            for value, p in points.items()
        }
        found = _in_turns(calls, repeats, f"{what} over {over}")
        seconds = [statistics.median(found[value]) for value in points]
        row = {"what": what, "over": over, "values": list(points), "cpu_seconds": seconds}
        row["exponent"] = float(np.polyfit(np.log(list(points)), np.log(seconds), 1)[0])
        rows.append(row | ({"updates": list(counts.values())} if counts else {}))
    return rows


EPS, RHO = (2e-4, 4e-4, 8e-4, 1.6e-3), (0.0025, 0.01, 0.04, 0.16)


def _one_softmin(p, value, counts):
    return softmin(p.x, p.y, p.y.new_zeros(len(p.y)), p.eps)


def _one_solve(p, value, counts):
    solution = sinkhorn.solve(p.x, p.y, eps=p.eps, rho=(math.inf, p.rho), tol=1e-3)
    counts[value] = solution.iterations


def _reference(p):
    """The image gradient in float64 and how near the fixed point it is, by a dense check.

    The map g -> T(g) of one Sinkhorn iteration contracts in the largest norm by 1 / (1 + eps/rho),
    so that |g - g*| <= |g - T(g)| (1 + rho/eps), whatever solver g is from.
    """
    x = p.x.double().requires_grad_()
    y = p.y.double()
    solution = sinkhorn.solve(
        x, y, eps=p.eps, rho=(math.inf, p.rho), tol=1e-9, max_iter=3000, scaling=0.8
    )
    solution.value.backward()
    f = exact_softmin(p, solution.g - p.eps * math.log(len(y)))
    back = p._replace(x=p.y, y=p.x)
    g = exact_softmin(back, f - p.eps * math.log(len(x))) / (1 + p.eps / p.rho)
    bound = float((g - solution.g).abs().max()) / p.eps * (1 + p.rho / p.eps)
    checks = {"residual": solution.residual, "error_of_g_over_eps_at_most": bound}
    return image_gradient(p, x.grad), checks | {"converged": solution.converged}


def _in_turns(calls, repeats, label):
    """{name: times}: every call once in each repeat."""
    times = {name: [] for name in calls}
    for _ in tqdm(range(repeats), desc=label):
        for name, call in calls.items():
            times[name].append(call()[0])
    return times


class _recorded:
    """Put into a row whether what is inside worked, and if not, why."""

    def __init__(self, row):
        self.row = row

    def __enter__(self):
        self.row["status"] = "ok"

    def __exit__(self, kind, error, trace):
        if kind is not None and issubclass(kind, Exception):
            # a missing part of a package (geomloss.this) is an error, a missing package is not
            missing = issubclass(kind, ImportError) and "." not in (error.name or "")
            self.row |= {"status": "not installed" if missing else "error"}
            self.row["message"] = f"{kind.__name__}: {error}".splitlines()[0][:300]
            return True
        return False


def _ott_versions():
    try:
        return peers.Ott.ask({"task": "versions"})
    except (ImportError, OSError, RuntimeError):  # its rows tell why
        return {"ott-jax": None, "jax": None}


def _strict(number):
    """The number, None where JSON has none for it."""
    return number if math.isfinite(number) else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--smoke", action="store_true", help="toy size: seconds, for tests")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no CUDA device here")
    full = "gpu" if options.device == "cuda" else "full"
    result = bench("smoke" if options.smoke else full, device=options.device)
    write_aside(options.out, json.dumps(result, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
