"""Odd images: every kind that Pillow can hold, and every way in which a file can be broken."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.errors import BadImageError, UnreadFileError
from stages.vision.images import decode, read_image

RAMP = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
COLOUR = np.dstack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)])


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(data, name="test")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "gif"])
def test_colour_of_a_lossless_format_survives(kind: str) -> None:
    options = {"lossless": True} if kind == "webp" else {}
    got = pixels(encoded(Image.fromarray(COLOUR), kind, **options))
    assert np.abs(got - COLOUR).max() <= (40 if kind == "gif" else 0)


def test_jpeg_is_close() -> None:
    assert np.abs(pixels(encoded(Image.fromarray(COLOUR), "jpeg", quality=95)) - COLOUR).mean() < 3


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_grey_has_three_equal_channels(kind: str) -> None:
    got = pixels(encoded(Image.fromarray(RAMP), kind))
    assert (got == got[..., :1]).all()
    assert np.abs(got[..., 0] - RAMP).max() <= 3


def test_palette_and_one_bit() -> None:
    palette = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert np.abs(pixels(encoded(palette, "png")) - COLOUR).mean() < 4
    bits = Image.fromarray(np.where(RAMP > 127, 255, 0).astype(np.uint8)).convert(
        "1", dither=Image.Dither.NONE
    )
    assert set(np.unique(pixels(encoded(bits, "png")))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_lie_over_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (200, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    if mode == "P":
        data = encoded(
            image.convert("RGB").convert("P"),
            "png",
            transparency=image.convert("RGB").convert("P").getpixel((0, 0)),
        )
    else:
        data = encoded(image.convert(mode), "png")
    got = pixels(data)
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[1, 1].tolist() != [255, 255, 255]


def test_a_colour_that_is_transparent_lies_over_white() -> None:
    """Of RGB too, which has no alpha of its own."""
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (10, 20, 31))
    got = pixels(encoded(image, "png", transparency=(10, 20, 30)))
    assert got[0].tolist() == [[255, 255, 255], [10, 20, 31]]


def test_a_machine_without_memory_is_not_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    data = encoded(Image.new("L", (4, 4)), "png")
    monkeypatch.setattr("stages.vision.images.to_rgb", full)
    with pytest.raises(UnreadFileError, match="not enough memory"):
        decode(data, name="large")


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    image = Image.new("RGBA", (1, 1), (0, 100, 200, 128))
    expected = np.array([0, 100, 200]) * 128 / 255 + 255 * 127 / 255
    assert np.abs(pixels(encoded(image, "png"))[0, 0] - expected).max() <= 1


def test_cmyk_is_converted() -> None:
    got = pixels(encoded(Image.fromarray(COLOUR).convert("CMYK"), "jpeg", quality=95))
    assert np.abs(got - COLOUR).mean() < 6


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    deep = np.tile(np.linspace(0, 65535, 40).astype(np.uint16), (30, 1))
    got = pixels(encoded(Image.fromarray(deep), kind))
    assert np.array_equal(got[..., 0], np.rint(deep / 257).astype(int))
    assert got.min() == 0
    assert got.max() == 255
    assert len(np.unique(got)) == 40


def test_big_endian_sixteen_bits() -> None:
    deep = np.array([[0, 257, 65535]], np.uint16)
    image = Image.frombytes("I;16B", (3, 1), deep.astype(">u2").tobytes())
    assert pixels(encoded(image, "tiff"))[0, :, 0].tolist() == [0, 1, 255]


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(BadImageError, match="no agreed range"):
        decode(encoded(Image.fromarray(np.ones((3, 3), np.float32)), "tiff"), name="a.tif")


def test_wide_integers_are_refused() -> None:
    with pytest.raises(BadImageError, match="32-bit grey"):
        decode(encoded(Image.fromarray(np.full((3, 3), 1 << 20, np.int32)), "tiff"), name="a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:10, :15] = (255, 0, 0)
    # How an upright picture lies in the file, for each value that EXIF defines.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, 3),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "png", exif=exif)
    assert np.array_equal(pixels(data), upright)


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(encoded(Image.fromarray(COLOUR), "png"))
    assert np.array_equal(np.asarray(read_image(file)), COLOUR)


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (3, 3), c) for c in ("red", "blue")]
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "bmp"])
def test_truncated_files_are_refused_at_every_length(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for share in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises(BadImageError, match="cut"):
            decode(data[: int(len(data) * share)], name="cut")


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b"hello world, no image", "not an image"), (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "")],
)
def test_what_is_no_image_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(BadImageError, match=f"holiday.jpg: .*{said}") as caught:
        decode(data, name="holiday.jpg")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadFileError, match=r"none\.png: cannot be opened"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UnreadFileError, match="cannot be opened"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encoded(Image.new("L", (10, 10)), "png"))
    import struct
    import zlib

    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(BadImageError, match="pixels"):
        decode(bytes(data), name="bomb.png")


def test_flipped_bytes_decode_or_are_refused_but_never_escape() -> None:
    rng = np.random.default_rng(1)
    for kind in ("jpeg", "png", "gif", "webp", "tiff"):
        clean = encoded(Image.fromarray(COLOUR), kind)
        for _ in range(60):
            data = bytearray(clean)
            for place in rng.integers(0, len(data), 4):
                data[place] = rng.integers(0, 256)
            try:
                assert decode(bytes(data), name="flipped").mode == "RGB"
            except BadImageError as problem:
                assert str(problem).startswith("flipped: ")
