"""Minimisers of the same energy side by side: what each had spent, and where it arrived."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np

from companion.page import figures
from companion.page.record import record

# {(form, image, minimiser): what `watch` saw, "prior", "data" and "foreign" too}
Raced: TypeAlias = dict[tuple[str, int, str], dict[str, Any]]
SHORT = "Adam, solves stopped"


def table(raced: Raced, names: dict[str, str], images: Sequence[str]) -> None:
    """Show steps, updates and where each run arrived. names, images: texts. Returns None."""
    rows = []
    for (form, k, way), seen in raced.items():
        row = [names[form], images[k], way, len(seen["psnr"]), sum(seen["updates"])]
        row += [f"{_energy(seen):.5f}", f"{seen['residual'][-2]:.3f}"]
        rows.append([*row, "{:.1%} of {:.1%}".format(*seen["foreign"][::-1]), seen["psnr"][-1]])
    head = ["form", "image", "minimiser", "steps", "updates", "energy", "residual"]
    figures.table([*head, "mass on foreign patches", "PSNR (dB)"], rows)


def record_ends(raced: Raced) -> None:
    """Record majorisation against Adam, and Adam's solves stopped against solved. Returns None."""
    places = list(dict.fromkeys((form, k) for form, k, _ in raced))
    both = [(raced[*at, "Adam"], raced[*at, "majorisation"]) for at in places]
    spent = [[sum(seen["updates"]) for seen in pair] for pair in both]
    record("updates_adam_over_majorise_least", min(adam / ours for adam, ours in spent))
    excess = max(_energy(ours) / _energy(adam) - 1 for adam, ours in both)
    record("energy_majorise_over_adam_most", excess, better="lower")
    for form in dict.fromkeys(form for form, _ in places):
        short, solved = (
            [raced[*at, way] for at in places if at[0] == form] for way in (SHORT, "Adam")
        )
        reached = [np.mean([seen["psnr"][-1] for seen in way]) for way in (short, solved)]
        record(f"stopped_gain_{form}", reached[0] - reached[1], unit="dB")
        left = np.mean([seen["residual"][-2] for seen in short])
        record(f"stopped_residual_{form}", left, better="lower")


def plot(raced: Raced, names: dict[str, str], images: Sequence[str]) -> None:
    """Draw PSNR against the updates spent, a panel a form. Returns None."""
    forms = list(dict.fromkeys(form for form, *_ in raced))
    figure, axes = plt.subplots(1, len(forms), figsize=(10, 3.4))
    for (form, k, way), seen in raced.items():
        if way == SHORT:
            continue
        axis = axes[forms.index(form)]
        spent = np.cumsum(np.reshape(seen["updates"], (-1, 2)).sum(1))
        mark: dict[str, Any] = {"marker": ".", "markevery": max(1, len(spent) // 20)}
        axis.semilogx(spent, seen["psnr"], label=f"{way}, {images[k]}", **mark)
        axis.set(title=names[form], xlabel="updates of (f, g)", ylabel="PSNR (dB)")
        axis.legend(frameon=False, fontsize=7)
    figures.show(figure, "svg")


def _energy(seen):
    return seen["prior"][-1] + seen["data"]
