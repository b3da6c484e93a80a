"""Every encoding in which tools write masks and depth maps is read as it was written, or refused with what to do."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from eyespot.data.labelled.label_files import (
    check_size,
    read_boundaries,
    read_depth,
    read_mask,
    read_matrix,
    read_normals,
)
from eyespot.data.labelled.stored import read_mat
from eyespot.data.sets.folders import open_depth_folder, open_mask_folder
from eyespot.data.sources.decode import PictureError, decode_picture
from label_writers import bmp, npy, npz, pfm, pgm, png, tiff
from replicas import photo

NUMBERS = np.random.default_rng(0).integers(0, 65536, (13, 21))
FLOATS = np.random.default_rng(1).uniform(0.5, 60, (13, 21))


def few(bits):
    return NUMBERS % 2**bits


def small(kind):
    return (NUMBERS % 100).astype(kind)


def at(folder, suffix, content):
    path = folder / f"label{suffix}"
    path.write_bytes(content)
    return path


def rgb(values, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


GREY = {"photometric": "minisblack"}
READ_RIGHT = {
    **{f"PNG grey {bits} bit": (".png", png(few(bits), bits), few(bits)) for bits in (1, 2, 4, 8, 16)},
    **{f"PNG palette {bits} bit": (".png", png(few(bits), bits, palette=True), few(bits)) for bits in (1, 2, 4, 8)},
    "PNG grey with a transparent number": (".png", png(few(4), 4, clear=True), few(4)),
    "PNG palette with a transparent number": (".png", png(few(8), 8, palette=True, clear=True), few(8)),
    **{
        f"PGM of {most}": (".pgm", pgm(NUMBERS % (most + 1), most, False), NUMBERS % (most + 1))
        for most in (3, 255, 999, 65535)
    },
    **{
        f"plain PGM of {most}": (".pgm", pgm(NUMBERS % (most + 1), most, True), NUMBERS % (most + 1))
        for most in (7, 65535)
    },
    **{f"NPY {kind}": (".npy", npy(small(kind)), small(kind)) for kind in ("i1", "u1", "<u2", ">u2", "<i4", ">i8")},
    "NPY of truth values": (".npy", npy(few(1).astype(bool)), few(1)),
    "NPY in Fortran's order": (".npy", npy(np.asfortranarray(small("u1"))), small("u1")),
    "NPY [H, W, 1]": (".npy", npy(small("u1")[..., None]), small("u1")),
    "NPY [1, H, W]": (".npy", npy(small("u1")[None]), small("u1")),
    "NPZ of one array": (".npz", npz(small("u1")), small("u1")),
    **{
        f"TIFF {kind}": (".tif", tiff(small(kind), **GREY), small(kind))
        for kind in ("u1", "i1", "u2", "i2", "u4", "i4")
    },
    "TIFF big-endian": (".tif", tiff(small("u2"), byteorder=">", **GREY), small("u2")),
    "TIFF deflated": (".tif", tiff(small("u2"), compression="zlib", **GREY), small("u2")),
    "TIFF in tiles": (".tif", tiff(small("u1"), tile=(16, 16), **GREY), small("u1")),
    "BMP": (".bmp", bmp(few(8)), few(8)),
}


@pytest.mark.parametrize("name", READ_RIGHT)
def test_masks_are_read_as_they_were_written(tmp_path, name):
    suffix, content, numbers = READ_RIGHT[name]
    assert np.array_equal(read_mask(at(tmp_path, suffix, content)).numpy(), numbers)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "lzma", "zstd"])
def test_compressed_masks(tmp_path, compression):
    content = rgb(few(8).astype(np.uint8), "TIFF", compression=compression)
    assert np.array_equal(read_mask(at(tmp_path, ".tif", content)).numpy(), few(8))


def interlaced(values):
    """Adam7, by hand: seven small pictures."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [values[top::down, left::across] for top, left, down, across in passes]
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for part in parts if part.size for row in part)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 0, 0, 0, 1)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_interlaced_masks(tmp_path):
    assert np.array_equal(read_mask(at(tmp_path, ".png", interlaced(few(8)))).numpy(), few(8))


COLOURS = np.stack([few(8)] * 3, 2).astype(np.uint8)
COLOURS[0, 0] = 1, 2, 3


def pages():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(2):
            writer.write(small("u1"), **GREY)
    return file.getvalue()


def sparse():
    """A TIFF whose strips lie nowhere, as GDAL writes empty parts."""
    with tifffile.TiffFile(io.BytesIO(content := tiff(small("u1"), **GREY))) as file:
        tag = file.pages[0].tags["StripOffsets"]
    return content[: tag.valueoffset] + bytes(4) + content[tag.valueoffset + 4 :]


def wrong_checksum():
    content = bytearray(png(few(8), 8))
    content[content.index(b"IDAT") + 10] ^= 1
    return bytes(content)


def bmp_of_few_colours():
    """8 bits with a palette of black and white, which Pillow takes for 1 bit."""
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 0, 8, 0, 0, 2, 0)
    palette, pixels = bytes((0, 0, 0, 0, 255, 255, 255, 0)), bytes((0, 1, 0, 1, 1, 0, 1, 0))
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + 8, 0, 0, start) + head + palette + pixels


REFUSED = {
    "colours, and ids in them": (".png", rgb(COLOURS), "colours do not say which class they mean: write its number"),
    "grey with alpha": (".png", rgb(np.stack([few(8)] * 2, 2).astype(np.uint8)), "colours do not say"),
    "colours with alpha": (".png", rgb(np.stack([few(8)] * 4, 2).astype(np.uint8)), "colours do not say"),
    "colours of a GIF": (".png", rgb(few(8).astype(np.uint8), "GIF"), "but GIF, which changes the numbers"),
    "a JPEG, whatever it is called": (
        ".png",
        rgb(few(8).astype(np.uint8), "JPEG"),
        "but JPEG, which changes the numbers",
    ),
    "a TIFF with JPEG in it": (".tif", rgb(few(8).astype(np.uint8), "TIFF", compression="jpeg"), "compressed by jpeg"),
    "a TIFF whose 0 is white": (".tif", tiff(small("u1"), photometric="miniswhite"), "calls 0 white"),
    "several pages": (".tif", pages(), "several pictures"),
    "a sparse TIFF": (".tif", sparse(), "not in the file"),
    "big-endian, compressed, 32 bits": (
        ".tif",
        tiff(small("i4"), byteorder=">", compression="zlib", **GREY),
        "high byte first",
    ),
    "half-precision TIFF": (".tif", tiff(FLOATS.astype("f2"), **GREY), "is no sound PNG, TIFF"),
    "double-precision TIFF": (".tif", tiff(FLOATS, **GREY), "is no sound PNG, TIFF"),
    "floats as classes": (".npy", npy(FLOATS), "expected one class number per pixel, got float64"),
    "objects": (".npy", npy(np.array([[None]], dtype=object)), "cannot be read as an array"),
    "texts": (".npy", npy(np.array([["a"]])), "no numbers"),
    "complex numbers": (".npy", npy(FLOATS * 1j), "no numbers"),
    "nothing": (".npy", npy(np.zeros((0, 3), np.uint8)), "no map"),
    "a line": (".npy", npy(np.arange(5)), "no map"),
    "negative numbers": (".npy", npy(small("i2") - 1), "holds -1 to .*ignore=255"),
    "1 is black": (".png", b"P4\n8 1\n\xaa", "PBM, in which 1 is black"),
    "a PNG with a wrong checksum": (".png", wrong_checksum(), "wrong checksum"),
    "a PNG cut short": (".png", png(few(8), 8)[:60], "cut short"),
    "a BMP of few colours": (".bmp", bmp_of_few_colours(), "few colours|8 bits with a grey palette"),
    "a page of a server": (".png", b"<html>", "is no sound PNG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_right_is_refused(tmp_path, name):
    suffix, content, message = REFUSED[name]
    path = at(tmp_path, suffix, content)
    with pytest.raises(ValueError, match=message) as refusal:
        read_mask(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("place", range(0, 90, 3))
def test_a_damaged_npz_is_named_in_a_line(tmp_path, place):
    """Its unpacker shows all that it has read, or seeks to where there is nothing."""
    content = bytearray(npz(FLOATS))
    content[-90 + place] ^= 0x80
    path = at(tmp_path, ".npz", bytes(content))
    try:
        assert np.allclose(read_depth(path).numpy(), FLOATS)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < 700


def test_several_arrays_in_one_file_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", depth=FLOATS, mask=FLOATS)
    with pytest.raises(ValueError, match=r"a\.npz holds 2 arrays; save the one that counts"):
        read_depth(tmp_path / "a.npz")


# Depth


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".npy", npy(FLOATS)),
        (".npy", npy(FLOATS.astype(">f4"))),
        (".npy", npy(FLOATS.astype("f2"))),
        (".npy", npy(FLOATS[..., None])),
        (".npz", npz(FLOATS)),
        (".tif", tiff(FLOATS.astype("f4"), **GREY)),
        (".tif", tiff(FLOATS.astype(">f4"), byteorder=">", **GREY)),
        (".tif", tiff(FLOATS.astype("f4"), compression="zlib", **GREY)),
        (".pfm", pfm(FLOATS, True)),
        (".pfm", pfm(FLOATS, False)),
    ],
)
def test_floats_are_metres(tmp_path, suffix, content):
    found = read_depth(at(tmp_path, suffix, content), scale=7.0)
    assert np.allclose(found.numpy(), FLOATS, rtol=1e-3)


@pytest.mark.parametrize(
    ("scale", "unit"),
    [(1e-3, "millimetres: NYU, ScanNet"), (1 / 256, "KITTI"), (1 / 5000, "TUM"), (0.01, "Virtual KITTI")],
)
def test_integers_are_in_units_of_the_scale(tmp_path, scale, unit):
    stored = NUMBERS.astype(np.uint16)
    stored[0, :2] = 0, 65535
    wanted = (stored * scale).astype(np.float32)
    wanted[0, :2] = 0  # no measurement, and as far as the camera sees
    for suffix, content in ((".png", png(stored, 16)), (".npy", npy(stored)), (".pgm", pgm(stored, 65535, False))):
        assert np.array_equal(read_depth(at(tmp_path, suffix, content), scale=scale).numpy(), wanted), unit


def test_what_is_no_measurement(tmp_path):
    path = at(tmp_path, ".npy", npy(np.array([[np.nan, np.inf, -np.inf, 0, -2, 1e300, 3]])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_depth(path).tolist() == [[0, 0, 0, 0, 0, 0, 3]]


@pytest.mark.parametrize("content", [rgb(COLOURS), png(few(1), 1)])
def test_depth_in_colours_or_bits_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"single channel.*CARLA.*save metres as \.npy"):
        read_depth(at(tmp_path, ".png", content))


def test_a_scale_of_its_own_is_refused(tmp_path):
    content = pfm(FLOATS, False).replace(b"\n-1.0\n", b"\n-0.5\n")
    with pytest.raises(ValueError, match="scale of its own"):
        read_depth(at(tmp_path, ".pfm", content))


# Normals, boundaries, matrices


def test_normals_in_another_range_are_refused(tmp_path):
    vectors = np.random.default_rng(2).normal(size=(4, 5, 3))
    with pytest.raises(ValueError, match=r"must be in \[-1, 1\], these go up to 255"):
        read_normals(at(tmp_path, ".npy", npy(np.full((4, 5, 3), 255.0))))
    with pytest.raises(ValueError, match="must be floats or bytes, got uint16"):
        read_normals(at(tmp_path, ".npy", npy(np.ones((4, 5, 3), np.uint16))))
    vectors[0, 0, 0] = np.nan
    found = read_normals(at(tmp_path, ".npy", npy(vectors / np.abs(vectors[1:]).max() / 1.5)))
    assert found[:, 0, 0].tolist() == [0, 0, 0]


def test_boundaries_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        read_boundaries(at(tmp_path, ".npy", npy(np.array([[np.nan, 1.0]]))))
    assert read_boundaries(at(tmp_path, ".png", png(few(2), 2))).tolist() == (few(2) >= 1.5).astype(int).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 x\n0 1 0\n0 0 1", "matrix of numbers"),
        ("1 0\n0 1", "3x3 matrix, got rows"),
        ("1 0 nan\n0 1 0\n0 0 1", "NaN"),
    ],
)
def test_a_matrix_is_finite_numbers(tmp_path, text, message):
    file = tmp_path / "camera-intrinsics.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        read_matrix(file, 3)
    assert str(file) in str(refusal.value)


def test_a_damaged_mat_file_is_named(tmp_path):
    file = at(tmp_path, ".mat", b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(ValueError, match=r"label\.mat has no readable entry LabelMap"):
        read_mat(file, "LabelMap")


# Folders


def a_set(folder, kind, suffix, content):
    for split in ("train", "val"):
        photo(folder / split / "images" / "0.jpg", height=13, width=21)
        (folder / split / kind).mkdir(parents=True)
        (folder / split / kind / f"0{suffix}").write_bytes(content)
    return folder


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".pgm", ".bmp", ".png", ".npz"])
def test_folders_of_masks_take_any_suffix_that_is_read(tmp_path, suffix):
    content = {".tif": tiff(small("u1"), **GREY), ".npy": npy(small("u1")), ".pgm": pgm(small("u1"), 99, True)}
    content |= {".bmp": bmp(small("u1")), ".png": png(small("u1"), 8), ".npz": npz(small("u1"))}
    data = open_mask_folder(a_set(tmp_path, "annotations", suffix, content[suffix]))
    assert data.classes == 100 and np.array_equal(data.val.labels[0].numpy(), small("u1"))


@pytest.mark.parametrize("suffix", [".tif", ".pfm", ".npz"])
def test_folders_of_depth_maps_take_any_suffix_that_is_read(tmp_path, suffix):
    content = {".tif": tiff(FLOATS.astype("f4"), **GREY), ".pfm": pfm(FLOATS, False), ".npz": npz(FLOATS)}
    data = open_depth_folder(a_set(tmp_path, "depth", suffix, content[suffix]), high=100)
    assert np.allclose(data.val.labels[0].numpy(), FLOATS)


@pytest.mark.parametrize(
    ("kind", "suffix", "message"),
    [
        ("depth", ".exr", "OpenEXR or OpenCV and save metres as .npy"),
        ("depth", ".mat", "scipy.io.loadmat or h5py"),
        ("depth", ".h5", "h5py and save"),
        ("annotations", ".json", "polygons have to be drawn first"),
        ("annotations", ".jpg", "JPEG changes numbers; write PNG"),
    ],
)
def test_other_kinds_of_label_files_are_refused_with_what_to_do(tmp_path, kind, suffix, message):
    folder = a_set(tmp_path, kind, suffix, b"whatever")
    with pytest.raises(ValueError, match=rf"0\{suffix}: label maps are read from .*{message}"):
        (open_depth_folder if kind == "depth" else open_mask_folder)(folder)


def test_a_number_of_many_may_stand_for_a_class(tmp_path):
    values = np.where(few(1) == 1, 300, 7).astype(np.uint16)
    data = open_mask_folder(a_set(tmp_path, "annotations", ".png", png(values, 16)), numbers=(7, 300))
    assert np.array_equal(data.val.labels[0].numpy(), few(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "from 2 to 32,767, got 1"),
        ({"classes": 10**6}, "from 2 to 32,767"),
        ({"ignore": -1}, "from 0 to 65535, got ignore=-1"),
        ({"numbers": (0, -1)}, "from 0 to 65535"),
        ({"numbers": (0, 0)}, "each once"),
        ({"numbers": (7,)}, "two classes or more"),
        ({}, "numbers up to 65[0-9]+: do they number objects"),
    ],
)
def test_numbers_that_no_mask_can_mean(tmp_path, options, message):
    folder = a_set(tmp_path, "annotations", ".png", png(NUMBERS, 16))
    with pytest.raises(ValueError, match=message):
        open_mask_folder(folder, **options)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": -1.0}, {"high": 0.0}, {"high": float("nan")}])
def test_lengths_that_are_none(tmp_path, options):
    folder = a_set(tmp_path, "depth", ".png", png(NUMBERS, 16))
    with pytest.raises(ValueError, match=f"{next(iter(options))}= is a length in metres above 0"):
        open_depth_folder(folder, **options)


# Pictures


def turned(path, turn, size=(8, 6)):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", size).save(path, exif=exif)
    return path


def test_maps_of_turned_pictures_are_of_what_is_seen(tmp_path):
    label = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"8x6, its picture 6x8.*turn the map as EXIF data turn the picture"):
        check_size(label, (8, 6), turned(tmp_path / "a.jpg", 6))
    check_size(label, (6, 8), tmp_path / "a.jpg")
    with pytest.warns(
        UserWarning, match=r"b\.jpg is turned by its EXIF data, and its size does not say whether a\.png is"
    ):
        check_size(label, (8, 6), turned(tmp_path / "b.jpg", 3))


def test_a_turned_mask_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(ValueError, match="turned by its EXIF data, as label maps are not"):
        read_mask(at(tmp_path, ".png", rgb(few(8).astype(np.uint8), exif=exif)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wrong_checksum(), "wrong checksum"),
        (sparse(), "not in the file"),
        (tiff(FLOATS.astype("f4"), byteorder=">", compression="zlib", **GREY), "high byte first"),
    ],
)
def test_pictures_that_pillow_would_misread_are_refused(content, message):
    with pytest.raises(PictureError, match=message):
        decode_picture(content)
    assert torch.tensor(np.asarray(decode_picture(png(few(8), 8)))).shape == (13, 21, 3)
