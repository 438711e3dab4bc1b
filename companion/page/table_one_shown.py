"""What a page shows of Table I of Mignon et al. 2023 and records nothing of."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt

from companion.page import figures, intervals, scores
from companion.page.forest import forest
from companion.page.kept import archived, values
from companion.page.table_one import SIDES, Found, Printed, settings_of

_OURS = ["PSNR (dB)", "LPIPS-Alex", "LPIPS as read there"]
_PRINTED = ["PSNR, paper", "LPIPS, paper"]


def tables(found: Found, settings: str, names: dict[str, str], printed: Printed) -> None:
    """Show the scores of all methods, beside the printed ones: a table for each reference, then
    one of the other settings.

    settings: of the first two. names: {method: text of its row}, in that order. printed: {} for
        images that are not the paper's. Returns None.
    """

    def row(setting, side, kind, method):
        columns = zip(found[method, setting][:, side].T, (2, 3, 3, 3, 3), strict=True)
        psnr, alex, as_read, *others = (intervals.spread(*column) for column in columns)
        there = _cells(printed, method, kind) if printed else ()
        return [names[method], psnr, alex, as_read, *others, *there]

    head = [*_OURS, "LPIPS-VGG", "SSIM", *(_PRINTED if printed else [])]
    for side, kind in enumerate(SIDES):
        rows = [row(settings, side, kind, method) for method in names]
        figures.table([f"{settings}, {SIDES[kind]}", *head], rows)
    others = [other for other in settings_of(found) if other != settings]
    rows = [
        [setting, SIDES[kind], *row(setting, side, kind, method)]
        for setting, (side, kind), method in product(others, enumerate(SIDES), names)
    ]
    if rows:
        figures.table(["settings", "reference", "method", *head], rows)


def download(found: Found, names: dict[str, str], pairs: Sequence[Any]) -> None:
    """Show a link to all scores, a row an image, method and reference.

    pairs: n of `otlib.assets.pairs.Pair`. Returns None.
    """
    rows = []
    for (method, settings), here in found.items():
        for (pair, lines), (side, kind) in product(
            zip(pairs, here.tolist(), strict=True), enumerate(SIDES)
        ):
            about = [settings, names[method], pair.category, *pair.names, kind, pair.area]
            rows.append([*about, *lines[side]])
    head = ["settings", "method", "category", "image", "clean", "defective", "reference", "area"]
    figures.download("super-resolution.csv", [*head, *scores.MEASURES], rows)


def image_by_image(
    found: Found, settings: str, names: dict[str, str], rivals: Sequence[str]
) -> None:
    """Draw PSNR of the semi-unbalanced form minus that of each rival: a mark an image, a bar the
    interval of their mean. Arguments as in `table_one.differences`. Returns None."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    lines = list(product(rivals, enumerate(SIDES.values())))
    apart = [(found["semi", settings] - found[m, settings])[:, side, 0] for m, (side, _) in lines]
    for place, images in enumerate(apart):
        axis.plot(images, [place] * len(images), "|", color="0.5")
    labels = [f"{names[other]}, {text}" for other, (_, text) in lines]
    means = {"mean": [intervals.student(images) for images in apart]}
    forest(axis, labels, means, xlabel=f"PSNR of {names['semi']} minus that of ... (dB)")
    figures.show(figure, "svg")


def kept(pattern: str, names: dict[str, str], printed: Printed) -> None:
    """Show the means of runs kept in the archive beside the printed ones, the largest images first.

    pattern: of `kept.archived`. names: {method: text}, of the methods shown. Returns None.
    """
    # of the page, not of its minimisers alone
    runs = {title: run for title, run in archived(pattern).items() if "records" in run}
    if not runs:
        print("None is kept yet: `companion archive` keeps one.")
    for title, run in sorted(runs.items(), key=lambda one: -one[1]["parameters"]["size"]):
        told, value = run["parameters"], values(run)
        side = f"{told['size']} x {told['size']}"
        print(f"{title}: {value['dataset']}, {told['pairs']} pairs of {side}")
        for kind, reference in SIDES.items():
            rows = []
            for settings, method in product(told["settings"], names):
                psnr, alex, as_read = (
                    value[f"{settings}_{measure}_{method}_{kind}"]
                    for measure in ("psnr", "lpips", "lpips_as_read")
                )
                ours = f"{psnr:.2f}", f"{alex:.3f}", f"{as_read:.3f}"
                rows.append([settings, names[method], *ours, *_cells(printed, method, kind)])
            figures.table([f"settings, {reference}", "method", *_OURS, *_PRINTED], rows)


def _cells(printed, method, kind):
    """The printed PSNR and LPIPS of a method as texts."""
    there = printed.get(method)
    return (f"{there[kind]['psnr']:.2f}", f"{there[kind]['lpips']:.3f}") if there else ("-", "-")
