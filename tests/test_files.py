"""Files that are kept between runs read as they were written, or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.files import read_sealed, write_sealed


@settings(max_examples=50)
@given(st.binary(max_size=40), st.integers(0, 71), st.integers(1, 255))
def test_what_is_sealed_is_read_whole_or_not_at_all(tmp_path_factory, data, place, flip):
    path = tmp_path_factory.mktemp("kept") / "part-0"
    assert read_sealed(path) is None
    write_sealed(path, data)
    assert read_sealed(path) == data
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[: place % len(whole)])  # cut off, or empty
    assert read_sealed(path) is None
    path.write_bytes(bytes([*whole, flip]))
    assert read_sealed(path) is None
    whole[place % len(whole)] ^= flip
    path.write_bytes(whole)
    assert read_sealed(path) is None


def test_a_sealed_file_under_another_name_is_foreign(tmp_path):
    write_sealed(tmp_path / "part-0", b"0")
    (tmp_path / "part-0").rename(tmp_path / "part-1")
    assert read_sealed(tmp_path / "part-1") is None


@pytest.mark.parametrize("left", [b"", b"junk", None])
def test_it_is_written_over_what_was_there(tmp_path, left):
    path = tmp_path / "folder" / "part-0"
    if left is not None:
        path.parent.mkdir()
        path.write_bytes(left)
    write_sealed(path, b"data")
    assert read_sealed(path) == b"data"
    assert [p.name for p in path.parent.iterdir()] == ["part-0"]
