"""Greek letters for their names, where a text is shown to a reader."""

import re

_LETTERS = {"alpha": "α", "eps": "ε", "lambda": "λ", "phi": "φ", "rho": "ρ", "sigma": "σ"}
_APART = re.compile(r"(`[^`]*`|\$[^$]*\$)")
_NAMES = re.compile(rf"(?<![\\A-Za-z])({'|'.join(_LETTERS)})(?![A-Za-z])")


def lettered(text: str) -> str:
    """The text with the letters that its names mean, but for $formulas$ and `code`.

    text: plain, or in Markdown. Returns a text.
    """
    parts = _APART.split(text)
    parts[::2] = [_NAMES.sub(lambda name: _LETTERS[name[0]], part) for part in parts[::2]]
    return "".join(parts)
