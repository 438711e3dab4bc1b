"""Table I of Mignon et al. 2023: what the scores of methods on the same pairs of images say."""

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import numpy as np

from companion.page import figures, intervals
from companion.page.record import record

SIDES = {"clean": "defect-free", "defect": "with defect"}  # the two references of a pair
# {(method, settings): (n, 2, 5) scores: images, references in that order, `scores.quality`}
Found: TypeAlias = dict[tuple[str, str], np.ndarray]
Printed: TypeAlias = dict[str, dict[str, dict[str, float]]]  # {method: {side: {"psnr", "lpips"}}}


def losses(found: Found) -> dict[tuple[str, str], np.ndarray]:
    """What the defect costs, {(method, settings): (n,) dB}: PSNR with the clean reference minus
    PSNR with the other."""
    return {at: here[:, 0, 0] - here[:, 1, 0] for at, here in found.items()}


def record_means(found: Found, printed: Printed, methods: Sequence[str]) -> None:
    """Record the mean scores, the mean losses and how far from the printed table they are.

    methods: those with a prior, whose loss is recorded. Returns None.
    """
    lost = losses(found)
    for (method, settings), here in found.items():
        for kind, (psnr, lpips, as_read, *_) in zip(SIDES, here.mean(0), strict=True):
            record(f"{settings}_psnr_{method}_{kind}", psnr, unit="dB", better="higher")
            record(f"{settings}_lpips_{method}_{kind}", lpips, better="lower")
            record(f"{settings}_lpips_as_read_{method}_{kind}", as_read, better="lower")
        if method in methods:
            name = f"{settings}_loss_by_defects_{method}"
            intervals.tell(name, intervals.student(lost[method, settings]), "dB", "lower")
    for settings in settings_of(found):
        ends = product(printed, enumerate(SIDES))
        ours = [(printed[m][kind], found[m, settings][:, k].mean(0)) for m, (k, kind) in ends]
        off = max(abs(mean[0] - there["psnr"]) for there, mean in ours)
        record(f"{settings}_psnr_off_most", off)
        apart = [[abs(mean[k] - there["lpips"]) for there, mean in ours] for k in (1, 2)]
        record(f"{settings}_lpips_reading_excess", np.mean(apart[0]) - np.mean(apart[1]))


def differences(
    found: Found, names: dict[str, str], printed: Printed, rivals: Sequence[str]
) -> None:
    """Record and show the semi-unbalanced form minus each rival, image by image.

    names: {method: text}. rivals: methods. Returns None.
    """
    rows, lost = [], losses(found)
    for settings, (side, kind), other in product(settings_of(found), enumerate(SIDES), rivals):
        apart = found["semi", settings][:, side] - found[other, settings][:, side]
        gain, lpips = (intervals.student(column) for column in apart.T[:2])
        intervals.tell(f"{settings}_gain_over_{other}_{kind}", gain, "dB", "higher")
        intervals.tell(f"{settings}_lpips_over_{other}_{kind}", lpips, better="lower")
        there = "-"
        if other in printed:
            there = f"{printed['semi'][kind]['psnr'] - printed[other][kind]['psnr']:+.2f}"
        row = [settings, f"semi - {names[other]}", SIDES[kind], there, *gain.texts("+.2f")]
        rows.append([*row, _better(apart[:, 0]), *lpips.texts("+.3f")])
    cost = {m: printed[m]["clean"]["psnr"] - printed[m]["defect"]["psnr"] for m in printed}
    for settings in settings_of(found):
        apart = lost["balanced", settings] - lost["semi", settings]
        spared = intervals.student(apart)
        intervals.tell(f"{settings}_spared_by_semi", spared, "dB", "higher")
        row = [settings, f"loss by defects, {names['balanced']} - {names['semi']}", "both"]
        row += [f"{cost['balanced'] - cost['semi']:+.2f}", *spared.texts("+.2f")]
        rows.append([*row, _better(apart), "", ""])
    head = ["settings", "difference", "reference", "paper (dB)", "PSNR (dB)", "99 % interval"]
    figures.table([*head, "better in", "LPIPS-Alex", "99 % interval"], rows)


def settings_of(found: Found) -> list[str]:
    """The settings that were run, in that order."""
    return list(dict.fromkeys(settings for _, settings in found))


def _better(apart):
    return f"{(apart > 0).sum()} of {len(apart)}"
