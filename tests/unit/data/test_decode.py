"""Decoding one image file to square RGB bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotl.data.decode import decode, why_unreadable

EXIF_ORIENTATION = 0x0112


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def halves(first: tuple[int, ...], second: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """A 40 x 40 image, its top half of one colour and its bottom half of another."""
    image = Image.new(mode, (40, 40), first)
    image.paste(second, (0, 20, 40, 40))
    return image


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_pixels_of_a_square_png_of_the_wanted_size_come_unchanged(tmp_path: Path) -> None:
    image = noise(32, 32)
    pixels, mode = decode(saved(image, tmp_path / "a.png"), 32)
    np.testing.assert_array_equal(pixels, np.asarray(image))
    assert mode == ""


def test_bytes_decode_as_the_file_does(tmp_path: Path) -> None:
    path = saved(noise(50, 30), tmp_path / "a.png")
    np.testing.assert_array_equal(decode(path.read_bytes(), 24)[0], decode(path, 24)[0])


@pytest.mark.parametrize(("width", "height"), [(100, 40), (40, 100), (33, 33), (5, 5), (400, 300)])
def test_result_is_a_square_of_the_wanted_size(tmp_path: Path, width: int, height: int) -> None:
    pixels, _ = decode(saved(noise(width, height), tmp_path / "a.png"), 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8


def test_the_central_square_is_kept(tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 32), (255, 0, 0))
    image.paste((0, 255, 0), (32, 0, 64, 32))
    image.paste((0, 0, 255), (64, 0, 96, 32))
    pixels, _ = decode(saved(image, tmp_path / "a.png"), 32)
    assert (pixels == (0, 255, 0)).all()


def test_16_bit_gray_uses_its_whole_range(tmp_path: Path) -> None:
    values = np.full((16, 16), 65535, dtype=np.uint16)
    values[:, :8] = 32896  # 128 * 257
    pixels, mode = decode(saved(Image.fromarray(values), tmp_path / "a.png"), 16)
    assert mode == "I;16"
    assert (pixels[:, 0] == 128).all()
    assert (pixels[:, -1] == 255).all()


def test_a_dark_16_bit_image_stays_dark(tmp_path: Path) -> None:
    pixels, _ = decode(saved(Image.fromarray(np.full((16, 16), 200, dtype=np.uint16)), tmp_path / "a.png"), 16)
    assert (pixels == 0).all()


def test_32_bit_gray_with_byte_values_keeps_them(tmp_path: Path) -> None:
    pixels, mode = decode(saved(Image.fromarray(np.full((16, 16), 200, dtype=np.int32)), tmp_path / "a.tif"), 16)
    assert mode == "I"
    assert (pixels == 200).all()


def test_float_gray_with_byte_values_keeps_them(tmp_path: Path) -> None:
    pixels, mode = decode(saved(Image.fromarray(np.full((16, 16), 90.0, dtype=np.float32)), tmp_path / "a.tif"), 16)
    assert mode == "F"
    assert (pixels == 90).all()


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = halves((255, 0, 0, 255), (0, 0, 255, 0), "RGBA")
    pixels, mode = decode(saved(image, tmp_path / "a.png"), 40)
    assert mode == "RGBA"
    assert (pixels[:20] == (255, 0, 0)).all()
    assert (pixels[20:] == (255, 255, 255)).all()


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = halves((0,), (1,), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    pixels, mode = decode(saved(image, tmp_path / "a.png", transparency=0), 40)
    assert mode == "P"
    assert (pixels[:20] == (255, 255, 255)).all()
    assert (pixels[20:] == (200, 100, 50)).all()


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    image = halves((0,), (1,), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    pixels, mode = decode(saved(image, tmp_path / "a.gif"), 40)
    assert mode == "P"
    assert (pixels[0, 0] == (10, 20, 30)).all()
    assert (pixels[-1, 0] == (200, 100, 50)).all()


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    pixels, mode = decode(saved(cyan, tmp_path / "a.jpg", quality=95), 32)
    assert mode == "CMYK"
    np.testing.assert_allclose(pixels[16, 16].astype(int), (0, 255, 255), atol=4)


def test_gray_gives_three_equal_channels_and_is_not_odd(tmp_path: Path) -> None:
    pixels, mode = decode(saved(Image.new("L", (20, 20), 77), tmp_path / "a.png"), 20)
    assert (pixels == 77).all()
    assert mode == ""


@pytest.mark.parametrize(
    ("orientation", "red_side"),
    [(1, "top"), (3, "bottom"), (6, "right"), (8, "left"), (4, "bottom"), (2, "top")],
)
def test_exif_orientation_turns_the_image_upright(tmp_path: Path, orientation: int, red_side: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    image = Image.new("RGB", (40, 40), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 40, 10))
    pixels, _ = decode(saved(image, tmp_path / "a.png", exif=exif), 40)
    edge = {"top": pixels[0, 20], "bottom": pixels[-1, 20], "left": pixels[20, 0], "right": pixels[20, -1]}
    assert [side for side, colour in edge.items() if tuple(colour) == (255, 0, 0)] == [red_side]


def test_a_large_jpeg_decoded_at_reduced_scale_stays_close_to_the_exact_one(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 800, dtype=np.uint8)[None, :, None], (600, 1, 3))
    image = Image.fromarray(ramp)
    exact, _ = decode(saved(image, tmp_path / "a.png"), 48)
    reduced, _ = decode(saved(image, tmp_path / "a.jpg", quality=95), 48)
    assert np.abs(exact.astype(int) - reduced.astype(int)).max() <= 4


def test_a_truncated_jpeg_is_refused_by_both(tmp_path: Path) -> None:
    path = saved(noise(64, 64), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:1500])
    assert why_unreadable(path).startswith("image file is truncated")
    with pytest.raises(OSError, match="image file is truncated"):
        decode(path, 32)


def test_a_truncated_png_is_refused_by_both(tmp_path: Path) -> None:
    path = saved(noise(64, 64), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:3000])
    assert why_unreadable(path).startswith("image file is truncated")
    with pytest.raises(OSError, match="image file is truncated"):
        decode(path, 32)


def test_a_file_that_is_no_image_is_refused_by_both(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("not an image")
    assert why_unreadable(path) == "cannot identify image file"
    with pytest.raises(OSError, match="cannot identify image file"):
        decode(path, 32)


def test_an_empty_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert why_unreadable(tmp_path / "a.png") == "cannot identify image file"


def test_damage_of_any_kind_is_an_os_error() -> None:
    buffer = io.BytesIO()
    noise(24, 24).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[40:60] = bytes(20)  # the start of the compressed pixels
    with pytest.raises(OSError):
        decode(bytes(content), 24)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_sound_files_of_every_format_are_readable(tmp_path: Path, suffix: str) -> None:
    path = saved(noise(20, 20), tmp_path / f"a.{suffix}")
    assert why_unreadable(path) == ""
    assert decode(path, 16)[0].shape == (16, 16, 3)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert "is no regular file" in why_unreadable(pipe)
    with pytest.raises(OSError, match="is no regular file"):
        decode(pipe, 32)
