"""One image file to pixels: the same way for training, embedding and prediction."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)

_PLAIN_MODES = frozenset({"RGB", "L", "1"})
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
_TAIL_BYTES = 32


def why_unreadable(path: Path) -> str:
    """What is wrong with an image file, or "" when nothing is.

    Cheap for sound JPEG and PNG files, which end as their formats say: only their header is parsed. Any other
    file is decoded to be sure. A file that is damaged in the middle is found when it is decoded for training.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file, Image.open(file) as image:
            kind = image.format
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read()
        end = _JPEG_END if kind in ("JPEG", "MPO") else _PNG_END if kind == "PNG" else None
        if end is not None and end in tail:
            return ""
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises many kinds on damaged files
        return _reason(error)
    return ""


def check_regular(path: Path) -> None:
    """See that a file can be read to its end: whoever opens a pipe waits until somebody writes into it, maybe for ever.

    Raises:
        OSError: if it is a pipe, a socket or a device, or not there.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("is no regular file, but a pipe, a socket, a device or a folder")


def _reason(error: Exception) -> str:
    text = str(error).split(" <_io")[0].split(" '/")[0].strip()
    return text or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Any colour mode as RGB: 16-bit and float gray are scaled to 8 bits, transparency is laid on white."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float32)
        # 16-bit files use the whole range by definition; "I" and "F" files only sometimes do.
        largest = values.max(initial=0)
        top = 65535.0 if image.mode.startswith("I;16") or largest > 255 else 255.0
        if image.mode == "F" and largest <= 1:
            top = 1.0
        return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def decode(source: Path | bytes, size: int) -> tuple[NDArray[np.uint8], str]:
    """Decode an image, upright, scaled so that its short side is `size`, and cropped to the central square.

    Args:
        source: a file, or the bytes of one.
        size: side of the result in pixels.

    Returns:
        RGB pixels of shape (size, size, 3), and the colour mode of the file when it was not plain RGB, gray
        or black and white (else "").

    Raises:
        OSError: if the file cannot be read or is no image, or a damaged one.
    """
    if isinstance(source, Path):
        check_regular(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            mode = "" if image.mode in _PLAIN_MODES else image.mode
            # JPEG can decode straight to a half, quarter or eighth: never below twice the size that is needed.
            image.draft("RGB" if image.mode == "RGB" else None, (2 * size, 2 * size))
            upright = to_rgb(ImageOps.exif_transpose(image))
    except OSError:
        raise
    except Exception as error:  # Pillow raises many kinds (SyntaxError, ValueError, struct.error) on damaged files
        raise OSError(_reason(error)) from error
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Only the square is scaled: a long strip would otherwise grow to hundreds of megabytes first.
    square = np.asarray(upright.crop((left, top, left + side, top + side)), dtype=np.uint8)
    return square if side == size else resize_square(square, size), mode


def resize_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Bicubic with antialiasing, as Pillow's but four times as fast; uint8, (side, side, 3) to (size, size, 3)."""
    import torch
    from torch.nn.functional import interpolate

    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).unsqueeze(0)  # channels_last, without a copy
    scaled = interpolate(image, (size, size), mode="bicubic", antialias=True, align_corners=False)
    result: NDArray[np.uint8] = scaled[0].permute(1, 2, 0).numpy()
    return result


ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated file is an error, never a half-gray image
