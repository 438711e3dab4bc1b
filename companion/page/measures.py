"""How tables show and records name the measures of restored images that `tradeoff.points` takes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from companion.page import figures
from companion.page.deep_ot import key
from companion.page.estimates import Estimate
from companion.page.intervals import tell
from companion.page.record import Better


class Measure(NamedTuple):
    """A column of a table."""

    title: str
    decimals: int
    better: Better


MEASURES = {
    "psnr": Measure("PSNR (dB)", 2, "higher"),
    "pooled": Measure("pooled PSNR (dB)", 2, "higher"),
    "ssim": Measure("SSIM", 3, "higher"),
    "lpips_vgg": Measure("LPIPS", 3, "lower"),
    "gelbrich": Measure("Gelbrich", 4, "lower"),
    "w2": Measure("W2", 4, "lower"),
    "kid": Measure("KID x 1000", 1, "lower"),
    "fid": Measure("FID", 1, "lower"),
    "is": Measure("IS", 2, "higher"),
    "sharpness": Measure("detail", 2, ""),
}


def titles(kinds: Sequence[str]) -> list[str]:
    """The headers of columns. kinds: of MEASURES."""
    return [MEASURES[kind].title for kind in kinds]


def cells(found: dict[str, Estimate], kinds: Sequence[str]) -> list[str]:
    """A table's cells of some measures, empty where one was not taken.

    found: {kind: Estimate}. kinds: of MEASURES. Returns as many texts.
    """
    form = lambda kind: f"{found[kind].value:.{MEASURES[kind].decimals}f}"
    return [form(kind) if kind in found else "" for kind in kinds]


def table(
    columns: Sequence[str],
    rows: dict[tuple[object, ...], dict[str, Estimate]],
    kinds: Sequence[str],
    interval: str,
) -> None:
    """Show a table of measures.

    columns: headers of what tells the rows apart. rows: {cells of these columns: {kind: Estimate}}.
    kinds: of MEASURES. interval: the one whose interval the last column has.
    """
    shown = [[*about, *cells(found, kinds), found[interval].text] for about, found in rows.items()]
    figures.table([*columns, *titles(kinds), "interval"], shown)


def note(restorer: str, label: str, found: dict[str, Estimate], kinds: Sequence[str]) -> None:
    """Record measures of a restorer as RESTORER_KIND_LABEL.

    restorer: name. label: text. found: {kind: Estimate}. kinds: of MEASURES, those recorded.
    """
    for kind in kinds:
        name = f"{key(restorer)}_{kind}_{label}"
        tell(name, found[kind].interval(), better=MEASURES[kind].better)


def kept_rows(
    values: dict[str, Any],
    restorers: Sequence[str],
    kinds: Sequence[str],
    labels: dict[str, str],
) -> list[list[str]]:
    """Rows of an archived run's table: the restorer, the image, and its measures.

    values: of `kept.values`, recorded by `note`. restorers, kinds: names. labels: {as `note` had
    them: text}. Returns a row for each restorer and label.
    """
    text = lambda name, kind: f"{values[name]:.{MEASURES[kind].decimals}f}"
    return [
        [restorer, shown, *(text(f"{key(restorer)}_{kind}_{label}", kind) for kind in kinds)]
        for restorer in restorers
        for label, shown in labels.items()
    ]
