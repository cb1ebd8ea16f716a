"""Decode image files to 8-bit RGB, whatever they are.

Rules, applied to every file alike:

* EXIF orientation is applied; the format is told by content, not by the file's name.
* Transparent pixels are laid over white.
* 16-bit grey is scaled to 8 bits (65535 becomes 255, rounded); values are not clipped.
* Grey, palette, CMYK, YCbCr and 1-bit images become RGB as Pillow converts them; of several frames the
  first one counts.
* What cannot be decoded completely is refused with its reason. Nothing is ever substituted.
"""

from __future__ import annotations

import hashlib
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.errors import BadImageError, UnreadFileError

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_FAILURES = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    Warning,  # a warning of Pillow that the caller's filters turned into an error
    Image.DecompressionBombError,
)


def decode(data: bytes, *, name: str) -> Image.Image:
    """Decode the bytes of an image file to 8-bit RGB.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        What an error calls it.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB", upright.

    Raises
    ------
    BadImageError
        Empty, truncated, damaged, of an unknown format, or larger than Pillow's bound on pixels.
    UnreadFileError
        Memory ran out.

    Examples
    --------
    >>> from io import BytesIO
    >>> file = BytesIO()
    >>> Image.new("L", (4, 3), 255).save(file, "png")
    >>> decode(file.getvalue(), name="white").getpixel((0, 0))
    (255, 255, 255)
    """
    if not data:
        raise BadImageError(f"{name}: the file is empty: replace it or leave it out")
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise BadImageError(f"{name}: not an image in a format that Pillow knows: replace it") from None
    except MemoryError as problem:
        raise UnreadFileError(f"{name}: not enough memory to decode it") from problem
    except _FAILURES as problem:
        reason = (str(problem).splitlines() or [""])[0] or type(problem).__name__
        raise BadImageError(f"{name}: cannot be decoded ({reason}): replace it or leave it out") from problem


def read_image(path: Path, sha256: str | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB, see :func:`decode`.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        What the file's bytes must have.

    Raises
    ------
    BadImageError
        It cannot be decoded.
    UnreadFileError
        The file cannot be opened, or its bytes are not those that were hashed.
    """
    data = _bytes_of(path)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadFileError(
            f"{path}: changed since it was hashed: run again, with --rehash where that does not help"
        )
    return decode(data, name=str(path))


def hash_image(path: Path) -> str:
    """Return the SHA-256 of an image file.

    Raises
    ------
    UnreadFileError
        The file cannot be opened.
    """
    return hashlib.sha256(_bytes_of(path)).hexdigest()


def _bytes_of(path: Path) -> bytes:
    """Read a whole file."""
    try:
        return path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise UnreadFileError(f"{path}: cannot be opened ({reason})") from problem


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode of Pillow's to RGB by the rules of this module."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _from_sixteen_bit(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Scale grey values of 0 to 65535 to 0 to 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            f"32-bit grey values from {values.min()} to {values.max()}; save it with 8 or 16 bits"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
