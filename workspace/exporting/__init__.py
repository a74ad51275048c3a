"""A finished run's model in a form that other software runs, compared with the model itself before it is handed over.

    exporting.export(run, "bundle", out, trusted=True, unsafe=False)        or "onnx", "torchscript"

The code of a run may have been mended by a language model, so that it only ever runs in the sandbox: the scripts of
`beside/` are put next to its train.py for that.
"""

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from m3dspy.errors import DataError, RunFailed, UsageError, unknown
from m3dspy.signatures.values import Design, Index, Item, Request
from m3dspy.workspace import execute, training, untrusted
from m3dspy.workspace.emit import templates
from m3dspy.workspace.exporting import bundle
from m3dspy.workspace.runs import Run, dataset, disk, write_atomic

FORMS = {"bundle": ("fire",), "onnx": ("onnxscript", "onnxruntime"), "torchscript": ()}  # and what each needs
CASES = 3  # held out, on which model and export are compared
CLOSE = 1e-4  # of the largest answer, or of 1
BESIDE = Path(__file__).parent / "beside"
EXAMPLE = "example.py"  # runs an ONNX graph without PyTorch
SECONDS = 3600.0
LARGEST_LINE = 1 << 16


def export(run: Run, form: str, out: Path, *, trusted: bool, unsafe: bool, clip: str | None = None) -> str:
    """Write the model of a finished run to a new folder; how it was compared with the model, in words.

    Args:   clip: weights of a frozen backbone, in place of those that the run was given.
    Raises: UsageError: there is no such form, it cannot hold this model, a package is missing, `out` is not empty, or
            the held-out images are not there.  RunFailed: the export ended badly, or answers differently; nothing is
            left in `out`.
    """
    index, request = run.load("index", Index), run.load("request", Request)
    _check(form, index, out, templates()[run.load("design", Design).template].needs)
    items = index.test[:CASES]
    root = dataset(run.folder, request)
    if not all((root / path).is_file() for item in items for path in _paths(item)):
        raise UsageError(
            f"The held-out images, with which the export is compared, are not in {root}. If the dataset was moved: "
            f"m3dspy resume {run.folder} --data DIR"
        )
    with TemporaryDirectory(prefix="m3dspy-export-") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        how = {"trusted": trusted, "unsafe": unsafe, "clip": clip}
        compare = _bundle if form == "bundle" else _graph
        said = compare(run, form, items, root, made, Path(scratch), **how)
        with disk(out):
            shutil.copytree(made, out, dirs_exist_ok=True)
    return said


def _check(form: str, index: Index, out: Path, needs: str | None) -> None:
    """Args: needs: the package that does the work of the run's template."""
    if form not in FORMS:
        raise UsageError(str(unknown("form", form, FORMS)))
    if form != "bundle" and index.task == "report_generation":
        raise UsageError(
            f"A {index.task} cannot be exported to {form}: it writes word by word, which is no graph. Use --to bundle."
        )
    if form != "bundle" and needs:
        raise UsageError(
            f"A model of {needs} is planned, cut and put together by it, which no graph holds. Use --to bundle."
        )
    if missing := [package for package in FORMS[form] if find_spec(package) is None]:
        raise UsageError(f"--to {form} needs {', '.join(missing)}: pip install 'm3dspy[export]'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there and not empty. Give a new folder with --out.")


def _paths(item: Item) -> Sequence[str]:
    return (item.image,) if isinstance(item.image, str) else item.image


# ------------------------------------------------------------------------------------------------ one graph
def _graph(
    run: Run,
    form: str,
    items: Sequence[Item],
    root: Path,
    made: Path,
    scratch: Path,
    *,
    trusted: bool,
    unsafe: bool,
    clip: str | None,
) -> str:
    """The network as one file. What goes in and comes out stands in README.md beside it."""
    code, listed = _code(run, scratch / "code"), scratch / "items.json"
    shutil.copy(BESIDE / "graph.py", code)
    shutil.copy(BESIDE / EXAMPLE, code)
    listed.write_text(json.dumps([item.model_dump(mode="json", include={"id", "image"}) for item in items]))
    mounts = {"items": listed, "data": root, "model": run.folder / "model", **training.clip_of(run, clip)}
    lines = execute.stream(
        code,
        "graph.py",
        [form, *(word for name in (*mounts, "out") for word in (f"--{name}", f"{{{name}}}"))],
        out=made,
        mounts=mounts,
        log=run.log("export"),
        seconds=SECONDS,
        trusted=trusted,
        unsafe=unsafe,
    )
    difference, alone = _differences([line for line in lines if line.startswith("{")], run)
    untrusted.refuse_odd(made)
    if not difference <= CLOSE:
        raise RunFailed(f"The {form} answers differently from the model: by {difference:.2g}.", run.log("export"))
    if alone is not None and not alone <= CLOSE:
        raise RunFailed(f"{EXAMPLE} answers differently from the model: by {alone:.2g}.", run.log("export"))
    if alone is not None:
        shutil.copy(BESIDE / EXAMPLE, made)
    write_atomic(made / "README.md", bundle.about_graph(run, form, alone is not None).encode())
    shutil.copy(run.folder / "model" / "settings.json", made)
    equal = f"equal to {difference:.1g} of the largest answer" if difference else "equal to the bit"
    probabilities = f"; {EXAMPLE}: probabilities equal to {alone:.1g}" if alone is not None else ""
    return f"{len(items)} held-out cases: {equal}{probabilities}"


def _differences(lines: Sequence[str], run: Run) -> tuple[float, float | None]:
    """Of the graph, and of the script beside it where there is one."""
    try:
        said = untrusted.strict_json(lines[-1].encode(), "the line")
        difference, alone = said["difference"], said["example"]
        if untrusted.finite(difference) and (alone is None or untrusted.finite(alone)):
            return float(difference), None if alone is None else float(alone)
    except (IndexError, KeyError, TypeError, DataError):
        pass
    raise RunFailed("The comparison with the model did not end with a number.", run.log("export"))


def _code(run: Run, folder: Path) -> Path:
    shutil.copytree(run.folder / "code", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


# ------------------------------------------------------------------------------------------------ a MONAI Bundle
def _bundle(
    run: Run,
    form: str,
    items: Sequence[Item],
    root: Path,
    made: Path,
    scratch: Path,
    *,
    trusted: bool,
    unsafe: bool,
    clip: str | None,
) -> str:
    """The run's own code in the form of a bundle; MONAI's command must give the very files that `predict` gives."""
    weights = training.clip_of(run, clip).get("weights")
    bundle.write(run, made, _code(run, scratch / "code"), BESIDE / "infer.py", weights)
    images, answers, native = scratch / "images", scratch / "answers", scratch / "native"
    answers.mkdir()
    named = [_copied(item, root, images) for item in items]
    copy = scratch / "bundle"
    shutil.copytree(made, copy)
    shutil.copy(BESIDE / "run_bundle.py", copy)
    lines = execute.stream(
        copy,
        "run_bundle.py",
        ["{code}", "{data}", "{out}"],
        out=answers,
        mounts={"data": images},
        log=run.log("export"),
        seconds=SECONDS,
        trusted=trusted,
        unsafe=unsafe,
        gpus="all",
    )
    for _ in lines:
        pass
    training.predict(run, named, images, native, trusted=trusted, unsafe=unsafe, weights=clip)
    untrusted.refuse_odd(answers)
    given, wanted = _files(answers), _files(native)
    if given != wanted:
        odd = sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name))
        raise RunFailed(f"The bundle answers differently from the model: {', '.join(odd)}.", run.log("export"))
    return f"{len(items)} held-out cases by MONAI's own command: {', '.join(sorted(given))} the same to the byte"


def _copied(item: Item, root: Path, folder: Path) -> Item:
    """The images of a case under its id, as `predict` and the bundle would find them in a folder of new images."""
    paths = _paths(item)
    if isinstance(item.image, str):
        suffix = ".nii.gz" if item.image.endswith(".nii.gz") else Path(item.image).suffix
        names = [f"{item.id}{suffix}"]
    else:
        names = [f"{item.id}/{number:05d}{Path(path).suffix}" for number, path in enumerate(paths)]
    for path, name in zip(paths, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / name)
    image = names[0] if isinstance(item.image, str) else tuple(names)
    return Item(id=item.id, patient=item.id, image=image)


def _files(folder: Path) -> dict[str, bytes]:
    """The answers in a folder."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != training.JOURNAL]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
