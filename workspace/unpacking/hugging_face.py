"""Hugging Face datasets as they lie on disk: `save_to_disk` folders (Arrow) and Parquet files with pictures inside.

Pictures are taken as they are stored, byte for byte. A second column of pictures that is called as masks are becomes
the masks; every other column of words or numbers becomes a column of labels.csv, classes by their names. Splits are
those of the dataset: its folders, or the beginning of the files' names (`train-00000-of-00004.parquet`). The caches
that `map` leaves are no data.
"""

import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError
from m3dspy.signatures.values import Split
from m3dspy.workspace import sources
from m3dspy.workspace.patterns import clean, is_mask_name
from m3dspy.workspace.tables import read_json
from m3dspy.workspace.unpacking._plain import Bounded, Plain, person_of, split_of, text_of, understood, walk

HOLDS_IMAGES = True
ROWS = 64  # that are held at a time


@dataclass(frozen=True)
class _Columns:
    """What a file's columns are. `classes`: column -> its class names, by number. `nested`: lists and records."""

    image: str
    mask: str
    classes: dict[str, list[str]]
    others: list[str]
    nested: list[str]


def found(root: Path) -> bool:
    return any(path.endswith((".arrow", ".parquet")) for path in walk(root))


def unpack(root: Path, plain: Plain) -> bool:
    files = _files(root)
    bounded = Bounded(sum((root / path).stat().st_size for path in files))
    splits: dict[str, Split | None] = {path: _split(path) for path in files}
    official = len(set(splits.values()) - {None}) > 1
    number, folders, nested = 0, set[str](), set[str]()
    for path in files:
        with sources.at_work(root / path), closing(_batches(root / path)) as batches:
            columns: _Columns | None = None
            for schema, rows in batches:
                columns = columns or _columns(schema, path)
                if columns is None:
                    break
                nested.update(columns.nested)
                folders.add("/".join(folder for folder in path.split("/")[:-1] if not split_of(folder)))
                if len(folders) > 1:
                    one, other = sorted(clean(folder or ".", 60) for folder in folders)
                    raise DataError(
                        f"The folders {one!r} and {other!r} hold a dataset each, such as two configurations of the "
                        "same pictures. Give the folder of one."
                    )
                for row in rows:
                    _row(row, columns, f"image-{number:06d}", splits[path] if official else None, plain, bounded)
                    number += 1
    if folders:
        plain.how.append("Pictures are as the dataset stores them" + ("; the split is its own." if official else "."))
    if nested:
        plain.how.append(f"Columns of lists or records are left out: {', '.join(sorted(nested))}.")
    return bool(folders)


def _files(root: Path) -> list[str]:
    """The files of rows: of a `save_to_disk` folder those that its state lists, elsewhere all but the caches.

    Raises: DataError: one that is listed is not there.
    """
    every = list(walk(root))
    files = {path for path in every if path.endswith((".arrow", ".parquet")) and "/cache-" not in f"/{path}"}
    for path in every:
        if path.rpartition("/")[2] == "state.json" and isinstance(state := read_json(root / path), dict):
            folder = path.removesuffix("state.json")
            with understood(path):
                listed = {f"{folder}{file['filename']}" for file in state.get("_data_files", ())}
            if lacking := listed.difference(every):
                raise DataError(f"{path} lists {clean(min(lacking), 80)}, which is not there. Fetch the dataset anew.")
            files -= {file for file in files if listed and file.rpartition("/")[0] == folder.rstrip("/")} - listed
    return sorted(files)


def _split(path: str) -> Split | None:
    """By the file's name, or the folder of a `DatasetDict`."""
    *folders, name = path.split("/")
    return split_of(name) or next((found for folder in reversed(folders) if (found := split_of(folder))), None)


def _batches(path: Path) -> Generator[tuple[Any, list[dict[str, Any]]]]:
    """The schema and the rows of a file, a few at a time.

    Raises: DataError: the file is damaged.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        if path.suffix == ".parquet":
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS):
                    yield file.schema_arrow, batch.to_pylist()
        else:
            with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
                for batch in stream:
                    for start in range(0, batch.num_rows, ROWS):
                        yield stream.schema, batch.slice(start, ROWS).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is damaged or cut short: {error}. Fetch it anew.") from None


def _columns(schema: Any, path: str) -> _Columns | None:
    """What the columns are, by what the library noted and by their types; None: no column holds pictures.

    Raises: DataError: several hold pictures, and none is called as masks are.
    """
    from pyarrow import types

    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    pictures, others, nested = [], [], []
    for field in schema:
        inside = {field.type.field(k).name for k in range(field.type.num_fields)} if types.is_struct(field.type) else ()
        if "bytes" in inside:
            pictures.append(field.name)
        elif not (types.is_nested(field.type) or types.is_binary(field.type)):
            others.append(field.name)
        else:
            nested.append(clean(field.name, 60))
    if not pictures:
        return None
    masks = [name for name in pictures if is_mask_name(name)]
    images = [name for name in pictures if name not in masks]
    if len(images) != 1 or len(masks) > 1:
        raise DataError(
            f"{path} has {len(pictures)} columns of pictures, {', '.join(pictures)}; one is read, and masks."
        )
    classes = {
        name: about["names"]
        for name, about in noted.items()
        if isinstance(about, dict) and about.get("_type") == "ClassLabel" and isinstance(about.get("names"), list)
    }
    return _Columns(images[0], masks[0] if masks else "", classes, others, nested)


def _row(
    row: dict[str, Any], columns: _Columns, name: str, split: Split | None, plain: Plain, bounded: Bounded
) -> None:
    image = plain.stored(name, _data(row[columns.image], name, bounded))
    cells = {column: _said(row[column], columns.classes.get(column)) for column in columns.others}
    if columns.mask:
        mask = plain.stored(name, _data(row[columns.mask], name, bounded), "masks")
        plain.pair(image, mask, split or "training", person_of(cells))
    if cells:
        plain.row(image, cells, split)


def _data(picture: dict[str, Any] | None, name: str, bounded: Bounded) -> bytes:
    data = (picture or {}).get("bytes")
    if not isinstance(data, bytes):
        raise DataError(
            f"Row {name} holds no picture, but at most the path of one. Save the dataset with its pictures."
        )
    bounded.take(len(data), name)
    return data


def _said(value: Any, names: list[str] | None) -> str:
    """A cell; the name of a class, which is told from a number."""
    if names is None or value is None:
        return "" if value is None else str(value)
    return text_of(names[value]) if 0 <= value < len(names) else ""
