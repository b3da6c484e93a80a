"""Hugging Face datasets: pictures and labels of one split, as a source; and what evaluation shares of reading them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eyespot.contents import file_contents
from eyespot.data.sources.decode import MAX_PIXELS, PictureError, decode_picture
from eyespot.data.sources.fingerprint import combined, fingerprint_of
from eyespot.specs import nearest_names, read_options

PREFIX = "datasets/"
OPTIONS = ("split", "image", "label", "config")


class HubSource:
    """The pictures of one split of a Hugging Face data set, decoded by our own decoder when they are read.

    Names and labels are known from the table; no picture is read before it is asked for.

    Args:
        spec: `datasets/NAME` or `datasets/FOLDER`, with options as `?split=train&image=image&label=label&config=NAME`.
            A folder is one that `save_to_disk` has written, or holds what `load_dataset` reads (Parquet files, class
            folders of pictures). By default the split is train; the pictures are in the column "image" or the only
            one of pictures, the labels in the column "label" or the only one of classes, if there is any.
        enough_side: see `decode_picture`.
        max_pixels: see `decode_picture`.

    Raises:
        ImportError: the library `datasets` is missing.
        FileNotFoundError: the data set is neither here nor can it be fetched.
        ValueError: no such split, column or option.
    """

    def __init__(self, spec: str, enough_side: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.name = spec
        self.enough_side = enough_side
        self.max_pixels = max_pixels
        place, options = _read_spec(spec)
        splits = load_splits(place, options.get("config"))
        rows = splits[present(spec, "split", options.get("split", "train"), list(splits))]
        if not len(rows):
            raise ValueError(f"{spec}: the split holds no pictures")
        column = _picture_column(spec, rows, options.get("image"))
        labels = _label_column(spec, rows, options.get("label"))
        self.classes: list[str] | None = None
        self._labels: np.ndarray | None = None
        if labels is not None:
            classes = class_values(rows, labels)
            self.classes = [str(value) for value in classes]
            self._labels = label_numbers(rows, labels, classes)
        self._fingerprint = fingerprint_of([rows._fingerprint, str(len(rows)), column, labels or ""])
        self._rows, self._column = undecoded(rows, column), column

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Image.Image:
        """Picture `index` as 8-bit RGB; raises `PictureError` if it is broken."""
        return decode_picture(self._file(index), self.picture_name(index), self.enough_side, self.max_pixels)

    def file_bytes(self, index: int) -> int:
        """How large the file of picture `index` is."""
        file = self._file(index)
        return file.stat().st_size if isinstance(file, Path) else len(file)

    def picture_name(self, index: int) -> str:
        """The source and the number of picture `index`."""
        return f"{self.name}#{index}"

    def label(self, index: int) -> int | None:
        """The class of picture `index`, None if it has none."""
        number = -1 if self._labels is None else int(self._labels[index])
        return None if number < 0 else number

    def fingerprint(self) -> str:
        """A hash of the library's own fingerprint of the split, and of the columns; no picture is read for it."""
        return self._fingerprint

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`."""
        return rows_contents(self._rows, self._column)

    def _file(self, index: int) -> bytes | Path:
        try:
            return content_of(self._rows[index][self._column])
        except (OSError, ValueError) as error:
            raise PictureError(self.picture_name(index), f"{type(error).__name__}: {error}") from error


def may_fetch(spec: str) -> bool:
    """Whether opening this source may download it: it is a data set's name, not a folder."""
    return spec.startswith(PREFIX) and not any(
        Path(place).expanduser().is_dir() for place in (spec, _read_spec(spec)[0])
    )


def load_splits(place: str, config: str | None = None) -> Mapping[str, Any]:
    """The splits of a data set by name; a folder that holds a single one has it as "train".

    Args:
        place: a folder, or a name that `load_dataset` takes from its local cache or downloads.
        config: which configuration, where there are several.

    Raises:
        ImportError: the library `datasets` is missing.
        FileNotFoundError: it cannot be loaded; says what would help.
    """
    library = _library()
    folder = Path(place).expanduser()
    try:
        if any((folder / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
            found = library.load_from_disk(str(folder))
        else:
            found = library.load_dataset(str(folder) if folder.is_dir() else place, config)
    except Exception as error:  # of many kinds: network, cache, scripts, formats
        raise FileNotFoundError(
            f"{place}: {type(error).__name__}: {error}. Without a network bring a folder written by `save_to_disk` or "
            "the set's Parquet files, or the library's cache (HF_HOME) of a machine that has loaded it"
        ) from error
    return found if isinstance(found, dict) else {"train": found}


def undecoded(rows: Any, column: str) -> Any:
    """The column of pictures alone, as files in place of decoded pictures."""
    return rows.select_columns([column]).cast_column(column, _library().Image(decode=False))


def content_of(file: Mapping[str, Any] | None) -> bytes | Path:
    """A picture file of an undecoded column: its content, or where it lies.

    Raises:
        ValueError: there is none in this row.
    """
    if not file or not (file["bytes"] or file["path"]):
        raise ValueError("the row holds no picture")
    return file["bytes"] or Path(file["path"])


def rows_contents(rows: Any, column: str) -> np.ndarray:
    """For `HasContents.contents`, int64 [N]: of the library's tables, which hold labels and often the pictures, too.

    Args:
        rows: what `undecoded` gave.
        column: of the pictures; those that lie in files of their own are read there.
    """
    tables = file_contents([file["filename"] for file in rows.cache_files])
    structs = rows.data.column(column).chunks
    files = [
        None if content else path
        for struct in structs
        for content, path in zip(
            struct.field("bytes").is_valid().to_pylist(), struct.field("path").to_pylist(), strict=True
        )
    ]
    own = np.zeros(len(files), np.int64)
    apart = [number for number, path in enumerate(files) if path and Path(path).is_file()]
    own[apart] = file_contents([str(files[number]) for number in apart])
    numbers = combined(*(np.full(len(files), table) for table in tables), own)
    order = rows._indices
    return numbers if order is None else numbers[order.column(0).to_numpy()]


def class_values(rows: Any, column: str) -> Sequence[Any]:
    """Class names where the column has them, else its different values in order."""
    names: list[str] | None = getattr(rows.features[column], "names", None)
    return names or sorted({value for value in rows[column][:] if value is not None})


def label_numbers(rows: Any, column: str, classes: Sequence[Any]) -> np.ndarray:
    """Class of each row, int64 [N]; -1 where there is none.

    Args:
        rows: a `datasets.Dataset`.
        column: of the labels.
        classes: what `class_values` gave, of this split or another.

    Raises:
        ValueError: values that are none of the classes.
    """
    values = rows[column][:]
    names = getattr(rows.features[column], "names", None)
    if names is not None and list(names) != list(classes):  # the split numbers its classes in another way
        values = [None if value is None or value < 0 else names[value] for value in values]
        names = None
    if names is None:
        number = {value: index for index, value in enumerate(classes)}
        unknown = sorted({value for value in values if value is not None and value not in number})
        if unknown:
            raise ValueError(f"labels {', '.join(map(str, unknown[:5]))} do not occur among the training pictures")
        values = [number.get(value) for value in values]
    return np.array([-1 if value is None else value for value in values], dtype=np.int64)


def present(spec: str, what: str, name: str, known: Sequence[str]) -> str:
    """The name, if it is one of those known.

    Raises:
        ValueError: it is not.
    """
    if name not in known:
        raise ValueError(f"{spec}: no {what} {name!r}; there are {', '.join(known)}")
    return name


def _read_spec(spec: str) -> tuple[str, dict[str, str]]:
    place, _, query = spec.removeprefix(PREFIX).partition("?")
    options = {key: str(value) for key, value in read_options(query).items()}
    for key in options:
        if key not in OPTIONS:
            close = nearest_names(key, OPTIONS)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{spec}: no option {key!r}; {hint}There are {', '.join(OPTIONS)}")
    if not place:
        raise ValueError(f"{spec!r} names no data set; write datasets/NAME or datasets/FOLDER")
    return place, options


def _picture_column(spec: str, rows: Any, wanted: str | None) -> str:
    if wanted is not None:
        return present(spec, "column", wanted, rows.column_names)
    kind = _library().Image
    columns = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
    if "image" in rows.column_names:
        return "image"
    if len(columns) != 1:
        held = f"{len(columns)} columns of pictures" if columns else "no column of pictures"
        raise ValueError(f"{spec}: {held}; name one of {', '.join(rows.column_names)} as ?image=COLUMN")
    return columns[0]


def _label_column(spec: str, rows: Any, wanted: str | None) -> str | None:
    if wanted is not None:
        return present(spec, "column", wanted, rows.column_names)
    columns = [name for name, feature in rows.features.items() if isinstance(feature, _library().ClassLabel)]
    if "label" in rows.column_names:
        return "label"
    return columns[0] if len(columns) == 1 else None


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(
            "Hugging Face data sets need the library datasets: pip install 'eyespot[datasets]'"
        ) from error
