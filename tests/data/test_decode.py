import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyespot.data.sources.decode import PictureError, decode_picture
from eyespot.data.views.draw import View, apply_view


def encoded(picture, format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(width=48, height=32):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


def pixels(picture):
    return np.asarray(picture).astype(int)


def test_rgb_is_kept_bit_for_bit():
    result = decode_picture(encoded(gradient()), "a")
    assert result.mode == "RGB"
    assert np.array_equal(pixels(result), pixels(gradient()))


def test_path_is_read_and_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(gradient()))
    assert decode_picture(path).size == (48, 32)
    path.write_bytes(b"no picture")
    with pytest.raises(PictureError) as caught:
        decode_picture(path)
    assert caught.value.name == str(path)
    assert "known format" in caught.value.reason


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    format = "TIFF" if mode == "CMYK" else "PNG"
    result = decode_picture(encoded(gradient().convert(mode), format), mode)
    assert (result.mode, result.size) == ("RGB", (48, 32))


def test_cmyk_jpeg_keeps_its_colours():
    red = Image.new("RGB", (32, 32), (255, 0, 0)).convert("CMYK")
    result = pixels(decode_picture(encoded(red, "JPEG", quality=95), "red"))
    assert np.abs(result - [255, 0, 0]).max() < 6


def test_transparency_is_laid_on_white():
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    assert pixels(decode_picture(encoded(picture), "a")).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert pixels(decode_picture(encoded(grey), "a")).tolist() == [[[255, 255, 255]]]


def test_palette_with_transparency_is_laid_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 255, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    assert pixels(decode_picture(encoded(picture, transparency=1), "a")).tolist() == [[[0, 0, 255], [255, 255, 255]]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(format):
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    result = pixels(decode_picture(encoded(Image.fromarray(values), format), "a"))
    assert result[0, :, 0].tolist() == [0, 1, 128, 255]


def test_32_bit_grey_is_scaled():
    values = np.array([[0, 2**23, 2**31 - 1, -5]], dtype=np.int32)
    result = pixels(decode_picture(encoded(Image.fromarray(values), "TIFF"), "a"))
    assert result[0, :, 0].tolist() == [0, 1, 255, 0]
    values = np.array([[0, 65535, 257, 0]], dtype=np.int32)
    result = pixels(decode_picture(encoded(Image.fromarray(values), "TIFF"), "a"))
    assert result[0, :, 0].tolist() == [0, 255, 1, 0]


def test_float_grey_is_scaled():
    values = np.array([[0, 0.2, 1, np.nan]], dtype=np.float32)
    assert pixels(decode_picture(encoded(Image.fromarray(values), "TIFF"), "a"))[0, :, 0].tolist() == [0, 51, 255, 0]
    values = np.array([[0, 51, 255, 300]], dtype=np.float32)
    assert pixels(decode_picture(encoded(Image.fromarray(values), "TIFF"), "a"))[0, :, 0].tolist() == [0, 51, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = gradient()
    # How a camera stores the upright picture under each orientation: the inverse of what a viewer must do.
    turn = Image.Transpose
    stored = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    picture = upright.transpose(stored[orientation]) if orientation in stored else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decode_picture(encoded(picture, exif=exif), "a")
    assert np.array_equal(pixels(result), pixels(upright))


def test_damaged_exif_does_not_lose_the_picture():
    jpeg = encoded(gradient(), "JPEG")
    segment = b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff\xff\xff"
    damaged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert decode_picture(damaged, "a").size == (48, 32)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black", "red")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=50)
    assert pixels(decode_picture(data, "a")).min() > 250


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_picture_is_an_error_with_its_name(format, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, format)
    with pytest.raises(PictureError, match=r"^cut: ."):
        decode_picture(data[: int(len(data) * share)], "cut")


def test_empty_and_missing_files_are_errors(tmp_path):
    with pytest.raises(PictureError, match="empty"):
        decode_picture(b"", "a")
    with pytest.raises(PictureError, match="No such file"):
        decode_picture(tmp_path / "gone.png")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_corrupt_bytes_give_a_picture_or_a_picture_error(data):
    format = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]))
    content = bytearray(encoded(gradient(16, 12), format))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_picture(bytes(content), "fuzz", max_pixels=10**6).mode == "RGB"
    except PictureError as error:
        assert error.name == "fuzz" and error.reason


def test_huge_picture_is_refused_before_it_is_decoded():
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match=r"20000 x 20000 pixels .* max_pixels"):
            decode_picture(bomb, "bomb")
    assert Image.MAX_IMAGE_PIXELS is not None  # the limit of others is as it was


def test_pixel_limit_can_be_set():
    data = encoded(gradient())
    with pytest.raises(PictureError):
        decode_picture(data, "a", max_pixels=48 * 32 - 1)
    assert decode_picture(data, "a", max_pixels=48 * 32).size == (48, 32)


def test_enough_side_shrinks_and_draft_mode_spares_huge_jpegs():
    big = gradient(1600, 800)
    for format in ("JPEG", "PNG"):
        small = decode_picture(encoded(big, format), "a", enough_side=100)
        assert small.size == (100, 50)
        reference = big.resize((100, 50), Image.Resampling.BICUBIC)
        assert np.abs(pixels(small) - pixels(reference)).max() < 12
    # The JPEG needs an eighth of each side only; the limit counts what is decoded.
    assert decode_picture(encoded(big, "JPEG"), "a", enough_side=100, max_pixels=200 * 400).size == (100, 50)
    with pytest.raises(PictureError):
        decode_picture(encoded(big, "PNG"), "a", enough_side=100, max_pixels=200 * 400)


def test_small_pictures_are_not_enlarged_by_enough_side():
    assert decode_picture(encoded(gradient()), "a", enough_side=1000).size == (48, 32)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(399, 30), (200, 333), (101, 100), (1000, 3), (2, 1600), (799, 801)])
def test_pictures_keep_enough_and_less_than_twice_that(size, format):
    kept = decode_picture(encoded(gradient(*size), format), "a", enough_side=100)
    assert 100 <= max(kept.size) < 200
    # by a whole factor: no other shape, but for the rounding of a single pixel
    factor = round(max(size) / max(kept.size))
    assert all(abs(side / factor - other) <= 1 for side, other in zip(size, kept.size, strict=True))


def test_a_view_of_a_shrunk_picture_shows_what_the_whole_one_shows():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    data = encoded(coarse.resize((1200, 900), Image.Resampling.BICUBIC), "JPEG")
    view = View(box=(0.1, 0.2, 0.8, 0.9))
    whole, shrunk = (apply_view(decode_picture(data, "a", side), view, 64).float() for side in (None, 256))
    # The crop is rounded to whole pixels, of which one picture has fewer.
    assert (whole - shrunk).abs().mean() < 4
