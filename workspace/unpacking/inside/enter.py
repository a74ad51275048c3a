"""Unpack a dataset where a parser may crash: called by `workspace.unpack`, inside the sandbox.

Plain files go to `data/` of the output folder; `result.json` comes last; `journal` names the file at work.
"""

import argparse
import json
import os
import resource
from pathlib import Path

from m3dspy.errors import DataError, M3Error
from m3dspy.workspace import sources
from m3dspy.workspace.unpacking import FORMATS
from m3dspy.workspace.unpacking._plain import Plain

MEMORY_SHARE = 0.75  # of the machine's


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("data", "out"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--formats", nargs="+")
    given = parser.parse_args()
    limit = int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sources.keep_journal(given.out / "journal")
    try:
        result = _unpacked(given.data, given.out / "data", given.formats)
    except M3Error as error:
        result = {"error": str(error)}
    (given.out / "result.json").write_text(json.dumps(result))


def _unpacked(root: Path, out: Path, formats: list[str]) -> dict[str, object]:
    out.mkdir()
    for name in formats:
        plain = Plain(out)
        try:
            done = FORMATS[name].unpack(root, plain)
        except ImportError as error:
            raise DataError(f"{name} needs the package {error.name}: pip install 'm3dspy[formats]'") from None
        except (ValueError, OSError) as error:
            raise DataError(f"The dataset is {name} and cannot be unpacked: {error}".rstrip(".") + ".") from None
        except (LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"The dataset is {name}, but not as that is built: {type(error).__name__} {error}."
            ) from None
        if done:
            plain.finish()
            plain.kept |= {path.name: path.name for path in root.iterdir() if _is_document(path)}
            return {"format": name, "how": plain.how, "boxes": plain.boxes, "kept": plain.kept}
    return {}


def _is_document(path: Path) -> bool:
    """Whether a file at the top may tell what the dataset is about."""
    told = path.name.lower().startswith("readme") or path.name == "dataset_description.json"
    return told and path.is_file() and not path.is_symlink()


if __name__ == "__main__":
    main()
