import io
import multiprocessing
import os
import pickle
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from eyespot.data import open_source
from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.decode import PictureError
from eyespot.data.sources.folders import FolderSource
from eyespot.data.sources.shards import ShardSource, write_shards


def png(colour, size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members, format=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


@pytest.fixture
def shard(tmp_path):
    return write_tar(
        tmp_path / "a.tar",
        [
            ("__meta__.json", b"{}"),
            ("d/001.png", png((1, 0, 0))),
            ("d/001.cls", b"7\n"),
            ("d/001.txt", "ein Käfer".encode()),
            ("d/002.seg.png", png((9, 9, 9))),
            ("d/002.PNG", png((2, 0, 0))),
            ("d/.hidden.png", png((8, 8, 8))),
            ("e/001.cls", b"none"),
            ("e/001.png", png((3, 0, 0))),
        ],
    )


def reds(source):
    return [source.read(i).getpixel((0, 0))[0] for i in range(len(source))]


def test_samples_are_grouped_by_key(shard):
    source = ShardSource([shard])
    assert isinstance(source, PictureSource)
    assert reds(source) == [1, 2, 3]
    assert [source.picture_name(i) for i in range(3)] == [f"{shard}:{key}" for key in ("d/001", "d/002", "e/001")]
    assert source.label(0) == 7 and source.label(1) is None
    assert source.text(0) == "ein Käfer" and source.text(1) is None
    assert source.classes is None and source.damaged == [] and source.without_picture == 0


def test_label_that_is_no_number_is_an_error_with_its_name(shard):
    with pytest.raises(PictureError, match=r"a\.tar:e/001: its \.cls member"):
        ShardSource([shard]).label(2)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_dialects_and_long_names(tmp_path, format):
    name = "/".join(["folder" * 4] * 6) + "/é001.png" if format != tarfile.USTAR_FORMAT else "001.png"
    source = ShardSource([write_tar(tmp_path / "a.tar", [(name, png((5, 0, 0)))], format)])
    assert reds(source) == [5]
    assert source.picture_name(0).endswith(name[:-4])


def test_samples_without_picture_are_skipped_and_counted(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.txt", b"x"), ("2.png", png((2, 0, 0))), ("3.json", b"{}")])
    with pytest.warns(UserWarning, match="2 samples hold no picture"):
        source = ShardSource([path])
    assert source.without_picture == 2 and len(source) == 1


def test_shards_without_any_picture_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.txt", b"x")])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no pictures"):
        ShardSource([path])


def test_broken_picture_in_a_shard_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.png", b"broken"), ("2.png", png((2, 0, 0)))])
    with pytest.raises(PictureError, match=r"a\.tar:1: "):
        ShardSource([path]).read(0)


@pytest.mark.parametrize("where", ["in a picture", "in a header", "between members", "before the end mark"])
def test_shard_cut_short_keeps_what_is_complete(tmp_path, where):
    noise = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    members = []
    for number, values in enumerate(noise):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        members.append((f"{number:03d}.png", buffer.getvalue()))
    path = write_tar(tmp_path / "a.tar", members)
    with tarfile.open(path) as tar:
        headers = {member.name: member for member in tar}
    fourth = headers["003.png"]
    length, survivors = {
        "in a picture": (fourth.offset_data + 100, 3),
        "in a header": (fourth.offset + 100, 3),
        "between members": (fourth.offset, 3),
        "before the end mark": (headers["005.png"].offset_data + headers["005.png"].size, 6),
    }[where]
    whole = ShardSource([path])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(UserWarning, match=rf"a\.tar is cut short or damaged; {survivors} samples survive"):
        source = ShardSource([path])
    assert source.damaged == [path] and len(source) == survivors
    for index in range(survivors):
        assert source.read(index).tobytes() == whole.read(index).tobytes()


def test_damage_in_the_middle_is_reported(shard):
    with tarfile.open(shard) as tar:
        offset = next(member.offset for member in tar if member.name == "d/002.PNG")
    content = bytearray(shard.read_bytes())
    content[offset : offset + 512] = b"\xab" * 512
    shard.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="damaged; 1 samples survive"), pytest.warns(UserWarning, match="no picture"):
        assert reds(ShardSource([shard])) == [1]


def test_empty_shard_beside_a_good_one_is_reported(shard, tmp_path):
    (tmp_path / "b.tar").touch()
    with pytest.warns(UserWarning, match=r"b\.tar is cut short or damaged; 0 samples"):
        assert len(ShardSource([shard, tmp_path / "b.tar"])) == 3


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match="not an uncompressed tar"):
        ShardSource([tmp_path / "a.tar"])
    with pytest.raises(FileNotFoundError):
        ShardSource([tmp_path / "gone.tar"])


def test_shard_that_vanishes_is_an_error_with_its_name(shard):
    source = ShardSource([shard])
    shard.unlink()
    with pytest.raises(PictureError, match=r"d/001: .*No such file"):
        source.read(0)


def read_reds(source):
    return [reds(source) for _ in range(20)]


def test_processes_do_not_disturb_each_other(shard):
    source = pickle.loads(pickle.dumps(ShardSource([shard])))
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map(read_reds, [source] * 3)
    assert results == [[[1, 2, 3]] * 20] * 3


def test_fingerprint_follows_the_content_not_the_place(shard, tmp_path):
    before = ShardSource([shard]).fingerprint()
    moved = shard.rename(tmp_path / "b.tar")
    assert ShardSource([moved]).fingerprint() == before
    other = write_tar(tmp_path / "c.tar", [("d/001.png", png((1, 0, 0)))])
    assert ShardSource([other]).fingerprint() != before


def test_written_shards_give_the_same_pictures(tmp_path):
    for index in range(5):
        folder = tmp_path / "set" / ("even", "odd")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(png((index, 0, 0)))
    (tmp_path / "set" / "even" / "broken.png").write_bytes(b"broken")
    folder = FolderSource(tmp_path / "set")
    with pytest.warns(UserWarning, match=r"1 broken pictures left out.*broken\.png"):
        paths = write_shards(folder, tmp_path / "out", per_shard=2)
    assert [path.name for path in paths] == [f"shard-{number:06d}.tar" for number in range(3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in paths]
    source = ShardSource(paths)
    assert reds(source) == [0, 2, 4, 1, 3]
    assert [source.label(i) for i in range(5)] == [0, 0, 0, 1, 1]


def test_real_shard(shared):
    path = shared / "data" / "webdataset" / "cc12m-000000.tar"
    source = ShardSource([path])
    assert len(source) == 32 and source.damaged == []
    with tarfile.open(path) as tar:
        first = tar.extractfile("000000003.txt").read().decode()
    assert source.text(0) == first
    assert all(source.read(i).mode == "RGB" for i in range(32))


def links_and_files(folder):
    """Labels 0 1 0 1; equal files are linked, as tools against duplicates and `cp -l` leave them."""
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(folder / f"{index}.png")
    for index in range(2):
        (folder / f"{index}.cls").write_text(str(index))
        os.link(folder / f"{index}.cls", folder / f"{index + 2}.cls")
    os.link(folder / "0.png", folder / "3.png")
    return folder


def pack(folder, *options):
    path = folder.with_suffix(".tar")
    subprocess.run(["tar", "cf", path, *options, "-C", folder, *sorted(os.listdir(folder))], check=True)
    return path


def labels(source):
    return [source.label(index) for index in range(len(source))]


def test_hard_links_are_what_they_link_to(tmp_path, recwarn):
    source = open_source(str(pack(links_and_files(tmp_path / "hard"))))
    assert reds(source) == [0, 10, 20, 0] and labels(source) == [0, 1, 0, 1]
    assert not recwarn.list


def test_symbolic_links_within_the_archive_are_followed_and_others_are_counted(tmp_path):
    folder = links_and_files(tmp_path / "soft")
    for name, target in (("3.png", "4.png"), ("4.png", "2.png"), ("5.png", "../outside.png"), ("6.png", "6.png")):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    with pytest.warns(UserWarning, match=r"soft.tar: 2 members are links to what is not in it .*--dereference"):
        source = open_source(str(pack(folder)))
    assert reds(source) == [0, 10, 20, 20, 20] and labels(source) == [0, 1, 0, 1, None]


def test_archives_one_after_another_are_all_read(tmp_path, recwarn):
    first, second = pack(links_and_files(tmp_path / "a")), pack(links_and_files(tmp_path / "b"), "--transform=s/^/x/")
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + second.read_bytes())
    source = open_source(str(tmp_path / "both.tar"))
    assert reds(source) == [0, 10, 20, 0] * 2 and labels(source) == [0, 1, 0, 1] * 2
    assert not recwarn.list
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + b"no archive".ljust(1024))
    with pytest.warns(UserWarning, match=r"damaged; 4 samples survive"):
        assert len(open_source(str(tmp_path / "both.tar"))) == 4
