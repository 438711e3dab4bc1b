"""What this process opened: data and weights, with source, hash and licence."""

from typing import Any

__all__ = ["note", "used"]

_used: dict[tuple[str, str, str | None], tuple[str, bool]] = {}


def note(name: str, source: str, sha256: str | None, licence: str, private: bool = False) -> None:
    """Add to what `used` returns.

    name, source, licence: text. sha256: text, None where nothing was hashed. private: whether these
    are pictures of the user's, which nobody else is to be shown.
    """
    _used[name, source, sha256] = licence, private


def used() -> list[dict[str, Any]]:
    """Return what this process opened, sorted by name.

    Each is {"name", "source", "sha256", "licence", "private"}; source is package and version, id
    and revision on the hub, or the last part of the user's path.
    """
    keys = ("name", "source", "sha256", "licence", "private")
    rows = sorted(((*key, *about) for key, about in _used.items()), key=str)
    return [dict(zip(keys, row, strict=True)) for row in rows]
