"""Adam and majorisation at the published size: what a benchmark kept of both."""

from typing import Any, TypeAlias

import matplotlib.pyplot as plt

from companion.page import figures
from companion.page.kept import archived
from companion.page.record import record

Runs: TypeAlias = dict[tuple[str, str], list[dict[str, Any]]]  # {(image, way): looks, in order}
ADAM = "Adam"


def kept(pattern: str, label: str) -> Runs:
    """Read what a benchmark left and tell its origin. pattern: as of `archived`; label: with which
    the labels of its runs begin."""
    runs: list[dict[str, Any]] = []
    for title, found in archived(pattern).items():
        if "runs" not in found or not title.startswith(label):  # of a page, or of another
            continue
        runs += found["runs"]
        print(f"{title}; {found['provenance']['size']} size")
    if not runs:
        print("None is kept yet.")
    runs.sort(key=lambda run: run["pair"])
    return {(run["image"], run["way"]): run["looks"] for run in runs}


def table(runs: Runs, called: str) -> None:
    """Show where each way ends beside Adam, and record how far off it ends. Returns None.

    called: with what the names of the records begin. In brackets energies are compared by their
    ratio, PSNR and LPIPS by their difference.
    """
    rows = []
    off: dict[str, list[tuple[float, ...]]] = {}
    for (image, way), looks in runs.items():
        if (image, ADAM) not in runs:  # which takes longest: it may not be there yet
            continue
        end, adam = looks[-1], runs[image, ADAM][-1]
        excess = end["energy"] / adam["energy"] - 1
        apart = [end[name] - adam[name] for name in ("psnr", "lpips")]
        rows.append([image, way, f"{end['seconds']:.0f}", end["updates"]])
        rows[-1].append(f"{end['energy']:.5f} ({excess:+.2%})")
        rows[-1].append(f"{end['psnr']:.2f} ({apart[0]:+.3f})")
        rows[-1].append(f"{end['lpips']:.4f} ({apart[1]:+.4f})")
        off.setdefault(way, []).append((excess, *apart, adam["seconds"] / end["seconds"]))
    head = ["image", "minimiser", "CPU-s", "updates", "energy", "PSNR (dB)", "LPIPS-Alex"]
    figures.table(head, rows)
    for way, ends in off.items():
        if way != ADAM:
            name = f"{called}_" + way.replace(",", "").replace(" ", "_")
            energy, psnr, lpips, times = zip(*ends, strict=True)
            record(f"{name}_energy_excess_most", max(energy), better="lower")
            record(f"{name}_psnr_off_most", max(map(abs, psnr)), unit="dB", better="lower")
            record(f"{name}_lpips_off_most", max(map(abs, lpips)), better="lower")
            record(f"{name}_speedup_least", min(times), better="higher")


def plot(runs: Runs) -> None:
    """Draw the energy over the least one seen, PSNR and LPIPS against CPU seconds. Returns None."""
    if not runs:
        return
    images = list(dict.fromkeys(image for image, _ in runs))
    looks = figures.looks(list(dict.fromkeys(way for _, way in runs)))
    figure, axes = plt.subplots(len(images), 3, figsize=(10, 3 * len(images)), squeeze=False)
    for row, image in zip(axes, images, strict=True):
        here = {way: seen for (of, way), seen in runs.items() if of == image}
        least = min(look["energy"] for seen in here.values() for look in seen)
        for way, seen in here.items():
            spent = [look["seconds"] for look in seen]
            over = [100 * (look["energy"] / least - 1) for look in seen]
            values = over, *([look[name] for look in seen] for name in ("psnr", "lpips"))
            for axis, heights in zip(row, values, strict=True):
                axis.semilogx(spent, heights, label=way, **looks[way])
        row[0].set_yscale("symlog", linthresh=0.1)
        texts = ("energy over the least (%)", "PSNR (dB)", "LPIPS-Alex")
        for axis, text in zip(row, texts, strict=True):
            axis.set(title=image, xlabel="CPU seconds", ylabel=text)
            axis.legend(frameon=False, fontsize=7)
    figures.show(figure, "svg")
