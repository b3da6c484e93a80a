import shutil

import pytest
from PIL import Image

from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.decode import PictureError
from eyespot.data.sources.folders import FolderSource
from eyespot.data.sources.opening import open_source
from eyespot.data.sources.shards import write_shards


def picture(path, colour=(10, 20, 30), size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def classes(tmp_path):
    for name in ("cat/b.png", "cat/deep/er/a.JPG", "dog/c.png", "dog/.hidden.png", ".cache/d.png", "dog/notes.txt"):
        picture(tmp_path / "set" / name) if not name.endswith("txt") else (tmp_path / "set" / name).touch()
    return tmp_path / "set"


def test_folder_is_sorted_and_labelled_by_its_class_folders(classes):
    source = FolderSource(classes)
    assert isinstance(source, PictureSource)
    assert [source.picture_name(i) for i in range(len(source))] == [
        str(classes / name) for name in ("cat/b.png", "cat/deep/er/a.JPG", "dog/c.png")
    ]
    assert source.classes == ["cat", "dog"]
    assert [source.label(i) for i in range(3)] == [0, 0, 1]
    assert source.read(1).size == (6, 4)


def test_folder_without_class_folders_has_no_labels(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "a" / "c.png")
    source = FolderSource(tmp_path)
    assert source.classes is None and source.label(0) is None
    picture(tmp_path / "one" / "deep" / "x.png")
    assert FolderSource(tmp_path / "one").classes is None


def test_folder_follows_links_but_not_in_circles(classes):
    (classes / "dog" / "up").symlink_to(classes)
    (classes / "ox").symlink_to(classes / "cat")
    assert FolderSource(classes).classes is not None
    picture(classes.parent / "elsewhere" / "e.png")
    (classes / "emu").symlink_to(classes.parent / "elsewhere")
    source = FolderSource(classes)
    assert any(source.picture_name(i).endswith("emu/e.png") for i in range(len(source)))


def test_broken_picture_is_named(classes):
    (classes / "cat" / "b.png").write_bytes(b"broken")
    source = FolderSource(classes)
    with pytest.raises(PictureError, match=r"b\.png"):
        source.read(0)


def test_enough_side_and_max_pixels_reach_the_decoder(classes):
    picture(classes / "cat" / "b.png", size=(64, 32))
    assert FolderSource(classes, enough_side=16).read(0).size == (16, 8)
    with pytest.raises(PictureError):
        FolderSource(classes, max_pixels=100).read(0)


def test_fingerprint_tells_same_data_from_other(classes, tmp_path):
    before = FolderSource(classes).fingerprint()
    shutil.copytree(classes, tmp_path / "copy")
    assert FolderSource(tmp_path / "copy").fingerprint() == before
    picture(classes / "dog" / "new.png")
    assert FolderSource(classes).fingerprint() != before


def test_missing_folder_says_so_and_what_is_near(classes):
    with pytest.raises(FileNotFoundError, match=r"no folder .*sett.*did you mean .*set'"):
        FolderSource(classes.parent / "sett")
    with pytest.raises(FileNotFoundError, match="did you mean"):
        open_source(str(classes / "catt"))


def test_empty_folder_and_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no pictures in .*\.jpeg"):
        FolderSource(tmp_path)
    with pytest.raises(NotADirectoryError, match="folder that holds"):
        FolderSource(tmp_path / "notes.txt")


def test_folder_of_shards_is_pointed_to_its_shards(tmp_path):
    (tmp_path / "x.tar").touch()
    with pytest.raises(ValueError, match=r"give '.*/\*\.tar'"):
        open_source(str(tmp_path))


def test_open_source_opens_folders_and_shards(classes, tmp_path):
    assert open_source(str(classes)).name == str(classes)
    write_shards(FolderSource(classes), tmp_path / "shards", per_shard=1)
    for pattern in ("shard-*.tar", "shard-{000000..000002}.tar", "shard-00000{0,1,2}.tar"):
        source = open_source(str(tmp_path / "shards" / pattern))
        assert len(source) == 3 and source.name.endswith(pattern)
    assert len(open_source(str(tmp_path / "shards" / "shard-000001.tar"))) == 1


def test_ranges_with_and_without_leading_zeros(classes, tmp_path):
    one = write_shards(FolderSource(classes), tmp_path)[0]
    for number in (9, 10):
        shutil.copy(one, tmp_path / f"p-{number}.tar")
    assert len(open_source(str(tmp_path / "p-{9..10}.tar"))) == 6


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("x-{000000..000009}.tar", "10 of 10 shards are not there"),
        ("nothing-*.tar", "no shard matches"),
        ("nowhere", "A source is a folder"),
    ],
)
def test_absent_sources_are_not_found(spec, message, tmp_path):
    with pytest.raises(FileNotFoundError, match=message):
        open_source(str(tmp_path / spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("toybox:many", r"toybox\[:COUNT\[@SIZE\]\], for example"),
        ("toybox:0", "for example"),
        ("toybox@64", "for example"),
        ("https://example.org/x.tar", "download"),
        ("x.tar.gz", "unpack"),
        ("x-{1-3}.tar", "range"),
        ("photo.jpg", "folder that holds"),
    ],
)
def test_wrong_specs_say_what_would_be_right(spec, message):
    with pytest.raises(ValueError, match=message):
        open_source(spec)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "data.parquet").touch()
    with pytest.raises(ValueError, match="neither a folder nor"):
        open_source(str(tmp_path / "data.parquet"))


@pytest.mark.parametrize(("spec", "count", "size"), [("toybox", 4096, 96), ("toybox:7", 7, 96), ("toybox:5@32", 5, 32)])
def test_toybox_by_count_and_size(spec, count, size):
    pytest.importorskip("eyespot.data.toybox.source")
    source = open_source(spec)
    assert len(source) == count
    assert source.read(0).size == (size, size)


def test_real_folders(shared):
    caltech = open_source(str(shared / "data" / "caltech101" / "train"))
    assert caltech.classes is not None and len(caltech.classes) == 71
    assert len(caltech) == 71 * 26
    assert {caltech.label(i) for i in range(len(caltech))} == set(range(71))
    assert caltech.read(0).mode == "RGB"
    assert open_source(str(shared / "data" / "camvid" / "train" / "images")).classes is None
