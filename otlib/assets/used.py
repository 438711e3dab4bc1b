"""What this process opened: data and weights, with source, hash and licence."""

__all__ = ["note", "used"]

_used = {}


def note(name, source, sha256, licence, private=False):
    """Add to what `used` returns.

    name, source, licence: text. sha256: text, None where nothing was hashed. private: whether these
    are pictures of the user's, which nobody else is to be shown.
    """
    _used[name, source, sha256] = licence, private


def used():
    """Return what this process opened, sorted by name.

    Each is {"name", "source", "sha256", "licence", "private"}; source is package and version, id
    and revision on the hub, or the last part of the user's path.
    """
    keys = ("name", "source", "sha256", "licence", "private")
    rows = sorted(((*key, *about) for key, about in _used.items()), key=str)
    return [dict(zip(keys, row, strict=True)) for row in rows]
