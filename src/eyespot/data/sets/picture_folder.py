"""Plain folders: pictures without labels, and pictures with captions beside them."""

from __future__ import annotations

from pathlib import Path

from eyespot.data.labelled.base import FilePictures, RetrievalData
from eyespot.data.labelled.layout import Layout
from eyespot.data.loading.sampling import spread
from eyespot.data.sources.folders import FolderSource

CAPTIONS = Layout("pictures with captions", "FOLDER/.../NAME.jpg and, beside each, NAME.txt with one caption per line")


def open_picture_folder(folder: str | Path, limit: int | None = None) -> FilePictures:
    """All pictures below a folder, whatever its layout, proportions kept (see `FilePictures`).

    Args:
        folder: the folder.
        limit: at most this many pictures, spread evenly.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no pictures in it.
    """
    source = FolderSource(folder)
    return FilePictures([Path(source.picture_name(index)) for index in spread(len(source), limit)], crop=True)


def open_caption_folder(folder: str | Path, limit: int | None = None) -> RetrievalData:
    """Pictures anywhere below a folder, each with a text file of the same name beside it, one caption per line.

    Args:
        folder: the folder.
        limit: at most this many pictures, spread evenly.

    Raises:
        FileNotFoundError: no such folder.
        LayoutError: a picture without captions.
        ValueError: no pictures in it.
    """
    pictures = open_picture_folder(folder, limit)
    captions = []
    for path in pictures.paths:
        file = path.with_suffix(".txt")
        lines = CAPTIONS.file(file).read_text(encoding="utf-8").splitlines()
        captions.append([line.strip() for line in lines if line.strip()])
        if not captions[-1]:
            raise CAPTIONS.missing(f"caption in {file}")
    return RetrievalData(pictures, captions)
