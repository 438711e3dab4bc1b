import contextlib
import io
import os
import struct
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from companion.files import walk
from otlib.assets import images, photographs


def save(path, values, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values, **how).save(path)
    return path


def ramp(*shape, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.linspace(0, top, int(np.prod(shape))).round().astype(dtype).reshape(shape)


def png(path, values, depth, colour, before=(), after=()):
    """A PNG file by its specification; before and after: chunks around the pixels."""
    height, width = values.shape[:2]
    lines = []
    for row in values.reshape(height, -1):
        if depth == 16:
            line = row.astype(">u2").tobytes()
        else:
            bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            line = np.packbits(bits.astype(np.uint8).ravel()).tobytes()
        lines.append(b"\0" + line)  # no filter
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (b"IDAT", zlib.compress(b"".join(lines)))
    chunks = [(b"IHDR", head), *before, body, *after, (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    return path


def levels(depth, channels):
    """Pixels of every kind of level but 1, which is left for a transparent one."""
    rng = np.random.default_rng(depth + channels)
    values = rng.integers(0, 2**depth, (6, 7, channels))
    values[0, 0], values[0, 1] = 0, 2**depth - 1
    return np.where(values == 1, 0, values)


def shown(values, white):
    return torch.from_numpy(values.astype(np.float32) / white).movedim(-1, 0)


def same(path, expected):
    read = images.read(path)
    torch.testing.assert_close(read, expected, atol=1e-7, rtol=0)
    assert images.size(path) == expected.shape[1:]


# reading


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_eight_bits_are_read_exactly(tmp_path, suffix):
    grey, colour = ramp(5, 7), ramp(5, 7, 3)
    one = images.read(save(tmp_path / f"grey.{suffix}", grey))
    three = images.read(save(tmp_path / f"colour.{suffix}", colour))
    assert one.dtype == three.dtype == torch.float32
    torch.testing.assert_close(one, torch.from_numpy(grey.astype(np.float32) / 255)[None])
    torch.testing.assert_close(three.movedim(0, 2), torch.from_numpy(colour / np.float32(255)))
    assert one.min() == 0 and one.max() == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_levels(tmp_path, suffix):
    values = ramp(40, 50, dtype=np.uint16)
    read = images.read(save(tmp_path / f"deep.{suffix}", values))
    assert read.unique().numel() == values.size
    assert read.max() == 1
    torch.testing.assert_close(read[0], torch.from_numpy(values.astype(np.float32) / 65535))


def test_palette_and_bilevel_and_opaque_alpha_are_read_as_what_they_show(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:2, :, 0], colour[2:, :, 1] = 255, 128
    plain = images.read(save(tmp_path / "plain.png", colour))
    Image.fromarray(colour).quantize(4).save(tmp_path / "palette.png")
    torch.testing.assert_close(images.read(tmp_path / "palette.png"), plain)
    opaque = np.dstack([colour, np.full((4, 4), 255, np.uint8)])
    torch.testing.assert_close(images.read(save(tmp_path / "alpha.png", opaque)), plain)
    Image.fromarray(ramp(4, 4)).convert("1", dither=0).save(tmp_path / "bits.png")
    assert set(images.read(tmp_path / "bits.png").unique().tolist()) == {0.0, 1.0}


def test_what_cannot_be_read_is_one_line(tmp_path):
    clear = np.dstack([ramp(4, 4, 3), np.full((4, 4), 254, np.uint8)])
    save(tmp_path / "clear.png", clear)
    Image.fromarray(ramp(4, 4, 3)).convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "text.png").write_text("no image")
    whole = save(tmp_path / "whole.png", ramp(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    expected = {
        "clear.png": "must have no transparent pixels",
        "cmyk.tif": "must be grey or RGB of 8 or 16 bits, got mode CMYK",
        "float.tif": "must be grey or RGB of 8 or 16 bits, got mode F",
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "empty.png": "cannot be read as an image",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=rf"{name} {message}") as caught:
            images.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"gone.png is no file$"):
        images.read(str(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    ("colour", "channels", "depth"),
    [(0, 1, 1), (0, 1, 2), (0, 1, 4), (0, 1, 8), (0, 1, 16), (2, 3, 8), (2, 3, 16)],
)
def test_png_of_any_depth_with_a_transparent_level(tmp_path, colour, channels, depth):
    """tRNS names one level, at the depth of the file; where no pixel has it nothing is clear."""
    values = levels(depth, channels)
    expected = shown(values, 2**depth - 1)
    same(png(tmp_path / "plain.png", values, depth, colour), expected)
    clear = [(b"tRNS", struct.pack(f">{channels}H", *[1] * channels))]
    if depth > 1:
        same(png(tmp_path / "unused.png", values, depth, colour, clear), expected)
    values[3, 4] = 1
    if depth > 1 and channels == 3:  # one channel alone is another colour
        values[2, 2] = 1, 0, 0
    with pytest.raises(ValueError, match=r"used.png must have no transparent pixels"):
        images.read(png(tmp_path / "used.png", values, depth, colour, clear))
    marked = images.mask(tmp_path / "used.png").numpy()
    assert (marked == ((values > 0).any(-1) & (values != 1).any(-1))).all()


@pytest.mark.parametrize(("colour", "channels"), [(4, 1), (6, 3)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_with_alpha_keeps_its_channels_and_its_depth(tmp_path, colour, channels, depth):
    white = 2**depth - 1
    values = np.dstack([levels(depth, channels), np.full((6, 7), white)])
    same(png(tmp_path / "opaque.png", values, depth, colour), shown(values[..., :-1], white))
    values[5, 5, -1] -= 1
    with pytest.raises(ValueError, match=r"clear.png must have no transparent pixels"):
        images.read(png(tmp_path / "clear.png", values, depth, colour))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("grey", [True, False])
def test_palettes_are_what_they_show(tmp_path, depth, grey):
    rng = np.random.default_rng(depth)
    colours = rng.integers(0, 256, (2**depth, 3), dtype=np.uint8)
    if grey:
        colours[:] = colours[:, :1]
    index = rng.integers(0, 2**depth - (depth > 1), (6, 7, 1))  # the last is not used
    palette = (b"PLTE", colours.tobytes())
    expected = shown(colours[index[..., 0]], 255)
    expected = expected[:1] if grey else expected
    same(png(tmp_path / "plain.png", index, depth, 3, [palette]), expected)
    alphas = bytearray([255] * 2**depth)
    if depth > 1:
        alphas[-1] = 0
        clear = (b"tRNS", bytes(alphas))
        same(png(tmp_path / "unused.png", index, depth, 3, [palette, clear]), expected)
    alphas[0], index[2, 2] = 254, 0
    with pytest.raises(ValueError, match="must have no transparent pixels"):
        images.read(
            png(tmp_path / "used.png", index, depth, 3, [palette, (b"tRNS", bytes(alphas))])
        )


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_of_either_order_of_bytes(tmp_path, compression, order, depth):
    how = {"byteorder": order, "compression": compression}
    kind, white = f"u{depth // 8}", 2**depth - 1
    grey, colour = levels(depth, 1).astype(kind), levels(depth, 3).astype(kind)
    file = tmp_path / "t.tif"
    tifffile.imwrite(file, grey[..., 0], photometric="minisblack", **how)
    same(file, shown(grey, white))
    tifffile.imwrite(file, colour, photometric="rgb", **how)
    same(file, shown(colour, white))
    opaque = np.dstack([colour, np.full((6, 7), white, kind)])
    tifffile.imwrite(file, opaque, photometric="rgb", extrasamples=["unassalpha"], **how)
    same(file, shown(colour, white))
    if (order, depth) != (">", 16):  # Pillow knows it not
        tifffile.imwrite(file, grey[..., 0], photometric="miniswhite", **how)
        same(file, shown(white - grey, white))
    planes = np.ascontiguousarray(np.moveaxis(colour, -1, 0))
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", **how)
    if depth == 8:
        same(file, shown(colour, white))
    else:
        with pytest.raises(ValueError, match=r"^[^\n]*t.tif (must|cannot) [^\n]*$"):
            images.read(file)


def test_twelve_bits_of_a_tiff_have_a_white_of_their_own(tmp_path):
    values = np.array([[0, 4095, 1000, 7], [1, 2, 3, 2048]])
    bits = ((values.reshape(-1, 1) >> np.arange(11, -1, -1)) & 1).astype(np.uint8)
    body = np.packbits(bits.reshape(2, -1), axis=1).tobytes()
    #       width, height, depth, raw, black is 0, offset, samples, rows a strip, bytes
    tags = {256: 4, 257: 2, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 2, 279: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    entries = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "t.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + entries + body)
    assert (tmp_path / "t.tif").stat().st_size == 122 + len(body)
    same(tmp_path / "t.tif", shown(values[..., None], 4095))


def test_sixteen_bits_are_read_as_what_the_file_says(tmp_path):
    values = levels(8, 1)[..., 0].astype("u2")
    same(save(tmp_path / "dark.png", values), shown(values[..., None], 65535))


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "u4", "f4"])
def test_values_without_a_white_are_refused_but_as_a_mask(tmp_path, kind):
    values = np.zeros((8, 6), kind)
    values[:4, :3] = 1
    tifffile.imwrite(tmp_path / "t.tif", values, photometric="minisblack")
    with pytest.raises(ValueError, match=r"t.tif must be grey or RGB of 8 or 16 bits, got mode "):
        images.read(tmp_path / "t.tif")
    assert torch.equal(images.mask(tmp_path / "t.tif"), torch.from_numpy(values > 0))


def stored(upright, orientation):
    """The pixels of a file that shows `upright`: EXIF tells where its row 0 and column 0 belong."""
    height, width = upright.shape[:2]
    turned = orientation > 4
    rows, columns = np.indices((width, height) if turned else (height, width))
    if turned:  # row 0 is at the right for 6, 7; column 0 at the bottom for 7, 8
        x = width - 1 - rows if orientation in (6, 7) else rows
        y = height - 1 - columns if orientation in (7, 8) else columns
    else:  # column 0 is at the right for 2, 3; row 0 at the bottom for 3, 4
        x = width - 1 - columns if orientation in (2, 3) else columns
        y = height - 1 - rows if orientation in (3, 4) else rows
    return np.ascontiguousarray(upright[y, x])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_photograph_stands_upright(tmp_path, suffix, orientation):
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8], upright[:8, 32:] = (255, 0, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[274] = orientation
    exact = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path = save_with(tmp_path / f"p.{suffix}", stored(upright, orientation), exif=exif, **exact)
    assert images.size(path) == (24, 40)
    atol = 0.02 if suffix == "jpg" else 0
    torch.testing.assert_close(images.read(path), shown(upright, 255), atol=atol, rtol=0)


def save_with(path, values, **how):
    Image.fromarray(values).save(path, **how)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colours_stand_upright_too(tmp_path, orientation):
    upright = levels(16, 3)
    exif = Image.Exif()
    exif[274] = orientation
    told = [(b"eXIf", exif.tobytes()[6:])]  # without JPEG's "Exif\0\0"
    turned = stored(upright, orientation)
    same(png(tmp_path / "a.png", turned, 16, 2, told), shown(upright, 65535))
    same(png(tmp_path / "b.png", turned, 16, 2, (), told), shown(upright, 65535))
    extra = [(274, "H", 1, orientation, False)]
    for how in ({}, {"compression": "zlib"}):
        deep = turned.astype("u2")
        tifffile.imwrite(tmp_path / "c.tif", deep, photometric="rgb", extratags=extra, **how)
        same(tmp_path / "c.tif", shown(upright, 65535))
        tifffile.imwrite(tmp_path / "d.tif", deep[..., 0], extratags=extra, **how)
        same(tmp_path / "d.tif", shown(upright[..., :1], 65535))
        flat = (turned[..., 0] >> 8).astype("u1")
        tifffile.imwrite(tmp_path / "e.tif", flat, extratags=extra, **how)
        same(tmp_path / "e.tif", shown(upright[..., :1] >> 8, 255))


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_of_several_pages_the_first_is_read(tmp_path, suffix):
    pages = [Image.fromarray(np.full((8, 9), level, np.uint8)) for level in (51, 255)]
    pages = pages if suffix != "webp" else [page.convert("RGB") for page in pages]
    how = {"lossless": True} if suffix == "webp" else {}
    pages[0].save(tmp_path / f"p.{suffix}", save_all=True, append_images=pages[1:], **how)
    same(tmp_path / f"p.{suffix}", torch.full((3 if suffix == "webp" else 1, 8, 9), 0.2))


def test_what_pillow_takes_for_a_bomb_is_one_line(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", ramp(40, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # less than twice the limit is a large image
        images.read(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    for call in (images.read, images.size, images.mask):
        with pytest.raises(ValueError, match=r"large.png cannot be read as an image: [^\n]*bomb"):
            call(path)


def whole(suffix):
    stream = io.BytesIO()
    Image.fromarray(ramp(12, 15, 3)).save(
        stream, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    )
    return stream.getvalue()


WHOLE = {suffix: whole(suffix) for suffix in ("png", "jpg", "tif", "bmp", "webp", "gif")}


@settings(max_examples=200)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_damaged_file_is_one_line_or_an_image(suffix, data):
    content = bytearray(WHOLE[suffix])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, f"p.{suffix}")
        path.write_bytes(content)
        try:
            image = images.read(path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert image.shape[0] in (1, 3) and 0 <= image.min() <= image.max() <= 1


# masks

MARKED = np.zeros((16, 24), bool)
MARKED[:5, 3:9] = True  # no edge of it is one of JPEG's blocks


@pytest.mark.parametrize("level", [1, 120, 254, 255])
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_any_level_of_a_mask_marks(tmp_path, level, suffix):
    grey = (MARKED * level).astype(np.uint8)
    colour = np.zeros((16, 24, 3), np.uint8)
    colour[..., 2] = grey
    for values in (grey, colour):
        read = images.mask(save(tmp_path / f"m.{suffix}", values))
        assert read.dtype == torch.bool and (read.numpy() == MARKED).all()


def test_masks_of_any_depth_palette_and_alpha(tmp_path):
    grey = MARKED.astype(np.uint8)
    Image.fromarray(MARKED).save(tmp_path / "bits.png")
    save(tmp_path / "deep.png", grey.astype(np.uint16))
    two = Image.fromarray(1 - grey, "P")  # the mark is the colour, not the place in the palette
    two.putpalette([0, 0, 9, 0, 0, 0])
    two.save(tmp_path / "palette.png")
    save(tmp_path / "alpha.png", np.dstack([grey * 0 + 255, grey * 255]))  # white behind alpha
    save(tmp_path / "opaque.png", np.dstack([grey, grey * 0 + 255]))
    for path in tmp_path.iterdir():
        assert (images.mask(path).numpy() == MARKED).all(), path.name


@pytest.mark.parametrize("level", [100, 255])
def test_a_jpeg_mask_is_marked_by_half_its_height(tmp_path, level):
    path = save(tmp_path / "m.jpg", (MARKED * level).astype(np.uint8))
    assert (np.asarray(Image.open(path)) > 0).mean() > 1.2 * MARKED.mean()  # its waves
    assert (images.mask(path).numpy() == MARKED).all()
    empty = save(tmp_path / "m.jpg", (MARKED * 0).astype(np.uint8))
    assert not images.mask(empty).any()


# folders


@pytest.fixture
def tree(tmp_path):
    """Images at several depths, behind links, in a circle, twice, and behind a link to nothing."""
    for name in ("a/1.png", "a/b/2.JPG", "a/b/notes.txt", "a-b/3.webp", "c.png/4.tif"):
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    outside = tmp_path / "outside/deep"
    outside.mkdir(parents=True)
    (outside / "5.bmp").write_bytes(b"x")
    (tmp_path / "tree/linked").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/twice").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/a/b/circle").symlink_to(tmp_path / "tree")
    (outside / "back").symlink_to(tmp_path / "tree/a")
    (tmp_path / "tree/6.png").symlink_to(outside / "5.bmp")
    (tmp_path / "tree/gone.png").symlink_to(tmp_path / "nowhere.png")
    return tmp_path / "tree"


def test_every_image_below_a_folder_is_found_once(tree):
    found = [path.relative_to(tree).as_posix() for path in images.below(tree)]
    assert sorted(found) == [
        "6.png",
        "a-b/3.webp",
        "a/1.png",
        "a/b/2.JPG",
        "c.png/4.tif",
        "gone.png",
        "linked/deep/5.bmp",
    ]
    # what the key of a run hashes is what is read
    listed = [file for file in walk(tree) if Path(file).suffix.lower() in images.SUFFIXES]
    assert listed == sorted(file for file in found if file != "gone.png")
    assert images.below(str(tree)) == photographs.files(tree) == sorted(images.below(tree))


@contextlib.contextmanager
def unprivileged():
    """Root may read everything: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("forget")
def test_what_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        folder = Path(base, "photos")
        for index in range(3):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 16), dtype=np.uint8)
            save(folder / f"{index}.png", pixels)
        save(folder / "closed/3.png", ramp(16, 16))
        (folder / "gone.png").symlink_to(folder / "nowhere.png")
        os.chmod(base, 0o755)
        (folder / "0.png").chmod(0)
        (folder / "closed").chmod(0)
        with unprivileged(), pytest.warns(UserWarning) as caught:
            found = photographs.sets(folder, 16, (3, 0, 0))
        told = "; ".join(str(warning.message) for warning in caught)
        assert "closed: Permission denied" in told
        assert "0.png cannot be read as an image: Permission denied" in told
        assert "gone.png is no file" in told
        assert {photo.name for photo in found.natural} == {"1.png@0,0", "2.png@0,0"}
        (folder / "closed").chmod(0o700)


def test_a_name_is_no_path_and_a_path_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.named("folder", "one", ("one", "two"))
        assert not images.named("folder", "./one", ("one",))
        assert not images.named("folder", Path("one"), ("one",))
    (tmp_path / "one").mkdir()
    with pytest.warns(UserWarning, match=r"^folder 'one' is a name; for the path give './one'$"):
        assert images.named("folder", "one", ("one", "two"))


# grey and size


def test_grey_weighs_the_channels_and_keeps_grey():
    image = torch.rand(3, 4, 5, dtype=torch.float64)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close(images.grey(image), (weights[:, None, None] * image).sum(0)[None])
    same = image[:1].expand(3, -1, -1)
    torch.testing.assert_close(images.grey(same), image[:1])
    assert torch.equal(images.grey(image[:1]), image[:1])
    with pytest.raises(ValueError, match=r"^image must have 1 or 3 channels, got 4$"):
        images.grey(torch.zeros(4, 3, 3))


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_resize_keeps_constants_and_the_range(height, width, size, channels):
    image = torch.rand(channels, height, width)
    small = images.resize(image, size)
    assert small.shape == (channels, size, size)
    assert small.min() >= 0 and small.max() <= 1
    flat = images.resize(torch.full((channels, height, width), 0.3), size)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_resize_takes_the_central_square_and_does_not_alias():
    wide = torch.zeros(1, 8, 20)
    wide[:, :, 6:14] = torch.rand(1, 8, 8)
    torch.testing.assert_close(images.resize(wide, 8), wide[:, :, 6:14])
    torch.testing.assert_close(images.resize(wide, 4), images.resize(wide[:, :, 6:14], 4))
    fine = (torch.arange(64) % 2).float().expand(1, 64, 64)  # above the new Nyquist frequency
    inner = images.resize(fine, 16)[:, :, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.02, rtol=0)
