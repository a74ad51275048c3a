"""Real datasets: a download verified by its published layout and its checksums, and put where the benchmark looks.

    ROOT/NAME/         the dataset in its own layout: hard links to the files of the download, or what the task's
                       `arrange` makes of them
    ROOT/NAME.sha256   a checksum of every file, as `sha256sum` writes them; what is there already is held against it

A download is never written to. Files that archivers and file managers leave behind (`._*`, `.DS_Store`, `__MACOSX`) are
not part of a dataset.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.m3bench.task import BenchTask, truth
from m3dspy.signatures.values import Value
from m3dspy.workspace.indexes.cases import regex_of
from m3dspy.workspace.public import link
from m3dspy.workspace.runs import write_atomic

DEEPEST = 2  # folders between the one that is given and the dataset: archives are unpacked into folders of their own
MOST_NAMED = 3  # files in a message
DIGESTS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}  # by the length in hexadecimal
CHECKSUMS = re.compile(r"(.*\.|.*[_-])?(md5|sha1|sha256|sha512|checksum)(sum)?s?(\.txt)?", re.IGNORECASE)
_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{32,128})(?:\s+\*?(?P<name>\S.*))?")  # of md5sum and its like
_BSD_LINE = re.compile(r"(?:MD5|SHA1|SHA256|SHA512) \((?P<name>.+)\) = (?P<digest>[0-9a-fA-F]{32,128})")


class Fetched(Value):
    """What a fetch found. checked: files that agree with checksums that came along.  known: with those of before."""

    name: str
    found: Path
    folder: Path | None
    files: int
    checked: int
    known: int = 0
    notes: tuple[str, ...] = ()


def fetch(task: BenchTask, source: Path, root: Path | None = None) -> Fetched:
    """Verify a download and, if a root is given, put it there; the folder appears when all of it is there.

    Args:   source: the folder of the download, or one or two folders above it.
    Raises: DataError: something is missing, broken or not what it was; one line, with the way to get access.
    """
    if not source.is_dir():
        raise DataError(f"There is no folder {source}. {how_to_get(task)}")
    found = place(task, source)
    if truth(found) is not None:
        raise DataError(f"{found} is a phantom, no download of {task.name}. {how_to_get(task)}")
    if missing := lacking(task, found):
        raise DataError(f"{source} does not hold {task.name} whole: {'; '.join(missing)}. {how_to_get(task)}")
    names = list(files(found))
    checked = check_sums(found, names)
    fetched = Fetched(
        name=task.name, found=found, folder=None, files=len(names), checked=checked, notes=surplus(task, found)
    )
    if root is None:
        return fetched
    folder = root.absolute() / task.name
    if not folder.is_dir():
        _put(task, found, names, folder)
    return fetched.model_copy(update={"folder": folder, "known": _compare(folder, manifest_of(folder))})


def manifest_of(folder: Path) -> Path:
    """Where the checksums of a dataset that was fetched are: beside it."""
    return folder.with_name(f"{folder.name}.sha256")


def as_text(found: Fetched) -> str:
    """What a fetch found, in lines."""
    checks = [f"{found.checked:,} agree with the checksums that came along"] if found.checked else []
    checks += [f"{found.known:,} are what they were before"] if found.known else []
    lines = [f"{found.name} is whole: {found.files:,} files in {found.found}{''.join(f', {told}' for told in checks)}."]
    return "\n".join([*lines, *found.notes, *([f"Linked to {found.folder}"] if found.folder else [])])


def real(root: Path, tasks: Sequence[BenchTask]) -> dict[str, Path]:
    """Dataset's name -> its folder below `root`, for those that are there; what is called so must be it, and whole.

    Raises: DataError: there is no such root, or a dataset in it lacks something.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. Give the one that holds the datasets: ROOT/COVID19, ROOT/ADNI.")
    here = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    folders = {task.name: here[task.name.lower()] for task in tasks if task.name.lower() in here}
    for task in tasks:
        folder = folders.get(task.name)
        if not folder or truth(folder) is not None or (task.arrange and manifest_of(folder).is_file()):
            continue
        if missing := lacking(task, folder):
            raise DataError(f"{folder} is not {task.name} as published: {'; '.join(missing)}. {how_to_get(task)}")
        if task.arrange:
            raise DataError(
                f"{folder} is {task.name} as it is downloaded, and has to be arranged first: `m3dspy data fetch "
                f"{task.name} --from {folder} --to ANOTHER_ROOT`."
            )
    return folders


def how_to_get(task: BenchTask) -> str:
    """Where the real data is, and how to ask for it."""
    return task.access or f"It is published at {task.source}"


# ------------------------------------------------------------------------------------------------ layout
def files(folder: Path) -> Iterator[str]:
    """The files of a dataset, as sorted paths relative to its folder.

    Raises: DataError: a link leads nowhere, as those of git-annex do before their content is there.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _odd(name):
            continue
        if path.is_file():
            yield name.as_posix()
        elif path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to a file that is not here. Get its content first (git annex get).")


def _odd(name: Path) -> bool:
    return any(part.startswith("._") or part in (".DS_Store", "__MACOSX", "Thumbs.db") for part in name.parts)


def place(task: BenchTask, source: Path) -> Path:
    """The folder at or below `source` that lacks least of the dataset's layout; the uppermost of several."""
    best, least, level = source, len(lacking(task, source)), [source]
    for _ in range(DEEPEST):
        below = [path for above in level for path in sorted(above.iterdir())]
        level = [path for path in below if path.is_dir() and not _odd(Path(path.name))]
        for folder in level if least else ():
            if (missing := len(lacking(task, folder))) < least:
                best, least = folder, missing
    return best


def lacking(task: BenchTask, folder: Path) -> list[str]:
    """What the published layout has and this folder has not: "images/*.nii.gz: 17 of 20 files"; []: it is whole."""
    missing = []
    for part in task.layout:
        count = _count(folder, part.pattern)
        if not count:
            missing.append(f"nothing is called {part.pattern}")
        elif part.count is not None and count < part.count:
            missing.append(f"{part.pattern}: {count} of {part.count:,} files")
    return missing


def surplus(task: BenchTask, folder: Path) -> tuple[str, ...]:
    """Of what there is more than was published."""
    counted = ((part, _count(folder, part.pattern)) for part in task.layout)
    return tuple(
        f"{part.pattern}: {count:,} files where {part.count:,} are published"
        for part, count in counted
        if part.count is not None and count > part.count
    )


def _count(folder: Path, pattern: str) -> int:
    """How many files match a pattern of an index; no folder that cannot hold one is entered."""
    exact = regex_of(pattern)
    found = {path.relative_to(folder): path for plain in _globs(pattern) for path in folder.glob(plain)}
    return sum(
        bool(exact.fullmatch(name.as_posix())) and not _odd(name) and path.is_file() for name, path in found.items()
    )


def _globs(pattern: str) -> list[str]:
    """What `Path.glob` is to look for to find all that matches, and perhaps more.

    >>> _globs("vol##/{img/,}*.png")
    ['vol[0-9]*/img/*.png', 'vol[0-9]*/*.png']
    """
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        return [re.sub("#+", "[0-9]*", pattern)]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [plain for word in braces[1].split(",") for plain in _globs(before + word + after)]


# ------------------------------------------------------------------------------------------------ checksums
def check_sums(folder: Path, names: Sequence[str]) -> int:
    """Hold the files against the checksums that came with them; how many were.

    What is listed and not here (an archive that was unpacked and removed) is not missed: the layout tells what is.
    Raises: DataError: a file is not what its checksum says.
    """
    here, wanted = set(names), {}
    for name in filter(lambda name: CHECKSUMS.fullmatch(Path(name).name), names):
        for listed, digest in _listed(folder / name):
            path = os.path.normpath(Path(name).parent / listed)
            if path in here:
                wanted[path] = digest
    broken = [
        name
        for (name, digest), own in zip(wanted.items(), _digests(folder, wanted), strict=True)
        if own != digest.lower()
    ]
    if broken:
        raise DataError(f"{folder}: {_some(broken)} broken: not what the checksums beside them say. Download anew.")
    return len(wanted)


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    """(file, digest) of every line that is one; in `scan.zip.md5` the name may be left out."""
    for line in path.read_text(errors="replace").splitlines():
        found = _BSD_LINE.fullmatch(line.strip()) or _LINE.fullmatch(line.strip())
        if found and len(found["digest"]) in DIGESTS:
            yield found["name"] or path.stem, found["digest"]


def _digests(folder: Path, wanted: dict[str, str]) -> list[str]:
    """The digests of files, each by the algorithm of the one that is wanted."""

    def digest(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, DIGESTS[len(wanted[name])]).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(digest, wanted))


def _compare(folder: Path, manifest: Path) -> int:
    """Write the manifest of a folder, or hold the folder against it; how many files were compared."""
    names = list(files(folder))
    own = dict(zip(names, _digests(folder, dict.fromkeys(names, "0" * 64)), strict=True))
    if not manifest.is_file():
        write_atomic(manifest, "".join(f"{digest}  {name}\n" for name, digest in own.items()).encode())
        return 0
    before = dict(_listed(manifest))
    if changed := [name for name in sorted({*own, *before}) if own.get(name) != before.get(name)]:
        raise DataError(
            f"{folder}: {_some(changed)} not what {manifest} says. Remove both to fetch anew, if that was meant."
        )
    return len(own)


def _some(names: Sequence[str]) -> str:
    named, more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
    return f"{named} and {more} more are" if more > 0 else f"{named} {'is' if len(names) == 1 else 'are'}"


# ------------------------------------------------------------------------------------------------ putting it there
def _put(task: BenchTask, source: Path, names: Sequence[str], folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            whole = Path(temporary) / "data"
            whole.mkdir()
            if task.arrange:
                task.arrange(source, whole)
            for name in () if task.arrange else names:
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                link(source / name, whole / name)
            whole.rename(folder)
    except OSError as error:
        raise DataError(f"{task.name} could not be put into {folder}: {error.strerror or error}.") from None
