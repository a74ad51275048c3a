"""Look at a dataset, or check an index of it, where a parser may crash: called by `contained`, inside the sandbox.

Prints each notice as one JSON line. `result.json` comes last; `journal` names the files that are being read.
"""

import argparse
import json
import os
import resource
from pathlib import Path
from typing import Any

from m3dspy.errors import M3Error
from m3dspy.workspace import sources
from m3dspy.workspace.private import Private

MEMORY_SHARE = 0.75  # of the machine's; beyond it a file "needs more memory than this machine has"


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("data", "out", "index"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--caps", default="")
    given = parser.parse_args()
    limit = int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sources.keep_journal(given.out / "journal")
    private = Private()
    try:
        result = _check(given.index, given.data, given.caps) if given.index else _look(given.data, private)
    except M3Error as error:
        result = {"error": str(error), "kind": type(error).__name__}
    told = {} if given.index else {"private": private.values}
    (given.out / "result.json").write_text(json.dumps({**result, **told}))


def _look(root: Path, private: Private) -> dict[str, Any]:
    from m3dspy.workspace.look import look

    found = look(root, notice=lambda line: print(json.dumps(line), flush=True), private=private)
    return {"fingerprint": found.model_dump(mode="json")}


def _check(path: Path, root: Path, caps: str) -> dict[str, Any]:
    from m3dspy.signatures.values import Caps, Index
    from m3dspy.workspace.indexes.checking import check_index
    from m3dspy.workspace.indexes.reading import unreadable, without

    index = Index.model_validate_json(path.read_bytes())
    bad = unreadable(index, root)
    kept = without(index, {id for ids in bad.values() for id in ids})
    problems = check_index(kept, root, Caps.model_validate_json(caps))
    return {"problems": problems, "unreadable": bad}


if __name__ == "__main__":
    main()
