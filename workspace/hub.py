"""A dataset of the Hugging Face Hub as Parquet files in a folder, streamed: `m3dspy data pull NAME FOLDER`.

No code of the dataset is run. Pictures stay as they are stored, byte for byte; what a folder holds is read by
`workspace.unpacking.hugging_face`, in the sandbox, as any other folder.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError, UsageError
from m3dspy.workspace.runs import disk

NOTE = b"m3dspy"  # in a file: what was asked for
ROWS = 64  # that are held at a time


def pull(name: str, folder: Path, config: str | None = None, limit: int | None = None) -> dict[str, int]:
    """Write every split to a file of its own; split -> rows. A split that is there already is not fetched again.

    Args: name: `organisation/dataset`, or a local folder of pictures or Parquet files.  config: one of several that the
          dataset has.  limit: rows of each split.
    Raises: UsageError: there is no such dataset, it cannot be reached, it has several configurations, or the folder
            holds another or another part of it.  DataError: it holds no pictures, or ends early.
    """
    splits = _streams(name, config)
    if not any(_pictures(stream.features) for stream in splits.values()):
        columns = ", ".join(next(iter(splits.values())).features or ())
        raise DataError(f"{name} holds no pictures: its columns are {columns or 'not named'}. Choose another dataset.")
    asked = json.dumps({"name": name, "config": config, "limit": limit}).encode()
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return {
            split: _kept(stream, folder / f"{split}-00000-of-00001.parquet", limit, asked)
            for split, stream in splits.items()
        }


def _streams(name: str, config: str | None) -> dict[str, Any]:
    """Split -> rows to come."""
    from datasets import load_dataset

    try:
        splits = load_dataset(name, config, streaming=True)
        return {str(split): s if s.features else s._resolve_features() for split, s in splits.items()}
    except Exception as error:  # whatever a hub or a proxy answers
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise UsageError(
            f"The dataset {name} cannot be had: {reason}. A gated one wants HF_TOKEN; one of several configurations is "
            "chosen with --config; without a network give a local copy with --data."
        ) from error


def _pictures(features: Any) -> list[str]:
    from datasets import Image

    return [column for column, kind in (features or {}).items() if isinstance(kind, Image)]


def _kept(stream: Any, path: Path, limit: int | None, asked: bytes) -> int:
    """Rows of a split, in one Parquet file that appears when it is whole. Args: asked: what it is noted to be."""
    import pyarrow
    from pyarrow import parquet

    if path.is_file():
        if (noted := (parquet.read_schema(path).metadata or {}).get(NOTE)) != asked:
            raise UsageError(
                f"{path} is of another pull: {(noted or b'of nobody knows what').decode()}. Give a new folder."
            )
        return parquet.read_metadata(path).num_rows
    unborn, count = path.with_suffix(".tmp"), 0
    schema = stream.features.arrow_schema
    schema = schema.with_metadata({**(schema.metadata or {}), NOTE: asked})
    with parquet.ParquetWriter(unborn, schema) as writer:
        rows = _rows(stream, _pictures(stream.features))
        rows = rows if limit is None else islice(rows, limit)
        while some := list(islice(rows, ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))
            count += len(some)
    unborn.replace(path)
    return count


def _rows(stream: Any, pictures: list[str]) -> Iterator[dict[str, Any]]:
    """The rows, with every picture's bytes."""
    from datasets import Image
    from fsspec.core import url_to_fs

    for column in pictures:
        stream = stream.cast_column(column, Image(decode=False))
    try:
        for row in stream:
            for column in pictures:
                picture = row[column]
                if picture and picture["bytes"] is None:
                    files, path = url_to_fs(picture["path"])
                    row[column] = {"bytes": files.cat_file(path), "path": Path(picture["path"]).name}
            yield row
    except OSError as error:
        raise DataError(
            f"The stream ended early: {error}. Repeat the command; whole splits are not fetched anew."
        ) from error
