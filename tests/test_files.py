import pytest

from eyespot.files import atomic_folder, atomic_path, atomic_write_text, remove


class Stop(BaseException):
    """Like KeyboardInterrupt: not an Exception."""


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_under_its_name_only_when_done(tmp_path):
    with atomic_path(tmp_path / "deep/er/a.txt") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path / "deep/er"  # the same file system, so that renaming is one step
        assert not (tmp_path / "deep/er/a.txt").exists()
    assert entries(tmp_path / "deep/er") == ["a.txt"]
    assert (tmp_path / "deep/er/a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, Stop, OSError])
def test_an_error_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the n")
        raise error
    assert entries(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError, Stop])
def test_an_error_leaves_the_folder_that_was_there(tmp_path, error):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("old")
    with pytest.raises(error), atomic_folder(tmp_path / "model") as temporary:
        (temporary / "weights").write_text("n")
        raise error
    assert entries(tmp_path) == ["model"] and (tmp_path / "model/weights").read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/stale").write_text("old")
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "fresh").write_text("new")
    assert entries(tmp_path) == ["model"] and entries(tmp_path / "model") == ["fresh"]


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(IsADirectoryError, match="thesis is a folder"):
        atomic_write_text(tmp_path / "thesis", "x")
    with pytest.raises(OSError), atomic_path(tmp_path / "late") as temporary:
        temporary.write_text("x")
        (tmp_path / "late").mkdir()
    assert entries(tmp_path) == ["late", "thesis"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "disk/file.txt")
    for text in ("one", "two"):
        atomic_write_text(tmp_path / "link.txt", text)
        assert (tmp_path / "disk/file.txt").read_text() == text and (tmp_path / "link.txt").is_symlink()
    assert entries(tmp_path) == ["disk", "link.txt"] and entries(tmp_path / "disk") == ["file.txt"]


def test_a_file_replaces_a_file(tmp_path):
    for text in ("one", "two", ""):
        atomic_write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text() == text
    assert entries(tmp_path) == ["a.txt"]


def test_text_is_utf8(tmp_path):
    atomic_write_text(str(tmp_path / "a.txt"), "ocellus – 眼点")
    assert (tmp_path / "a.txt").read_bytes().decode("utf-8") == "ocellus – 眼点"


def test_leftovers_of_a_killed_process_do_not_stand_in_the_way(tmp_path):
    with atomic_path(tmp_path / "a") as temporary:
        left = temporary
        temporary.write_text("x")
    left.mkdir()
    (left / "half").write_text("h")
    atomic_write_text(tmp_path / "a", "new")
    assert entries(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "new"


def test_removing(tmp_path):
    (tmp_path / "folder/in").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert entries(tmp_path) == []
