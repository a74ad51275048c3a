"""A Design becomes a folder of plain files that trains on its own, with no m3dspy installed.

    train.py     the template, word for word but for two statements: `SETTINGS = ...` and `SPACE = ...`
    network.py   the network's file    harness.py, images.py, lean.py   what templates share    sources/   the readers
    mvfa/        a package of workspace/ that the template names in PACKAGES, and files in HELPERS

so that `diff` against the template shows every choice that was made. Templates and networks are read as text: looking
at the catalogue imports no torch. A template is a file of templates/ with a constant TASK; a network, one of networks/.
One with a constant NEEDS is offered only where that package is installed, and its networks name it: TEMPLATE.
"""

import ast
import difflib
import json
import math
import shutil
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from m3dspy.errors import M3Error, UsageError, unknown
from m3dspy.signatures.values import Catalogue, Design, Index, Knob, NetworkEntry, Task, TemplateEntry
from m3dspy.workspace.syntax import literal, parse

HERE = Path(__file__).resolve().parent
TEMPLATES, NETWORKS, SOURCES = HERE / "templates", HERE / "networks", HERE / "sources"
HELPERS = ("harness.py", "images.py", "lean.py")  # what every template imports
FIXED = {
    "multilabel",
    "network",
    "backbone",
    "dims",
    "channels",
    "intensity",
    "about",
    "shots",
    "draw",
    "scale",
    "seed",
    "shuffled",
    "workers",
    "cache_gb",
    "precision",
    "compile",
    "temperature",
    "folds",
    "tokenizer",
    "decoder",
}
MOST_VOXELS = 2**25  # in one batch: nnU-Net's largest plans use 2**23, which fill a GPU of 11 GB


# ---------------------------------------------------------------------------------------------------- the catalogue
def templates() -> dict[str, TemplateEntry]:
    """Every template by name."""
    found = {}
    for path in sorted(TEMPLATES.glob("*.py")):
        known = _constants(path)
        if "TASK" in known:
            settings = {name: default for name, (kind, default) in _settings(path).items() if _tunable(name, kind)}
            found[path.stem] = TemplateEntry(
                name=path.stem,
                task=known["TASK"],
                about=_about(path),
                losses=known["LOSSES"],
                settings=settings,
                presets=("default", *known.get("PRESETS", {})),
                needs=known.get("NEEDS"),
            )
    return found


def networks() -> dict[str, NetworkEntry]:
    """Every network by name."""
    found = {}
    for path in sorted(NETWORKS.glob("[!_]*.py")):
        known = _constants(path)
        found[path.stem] = NetworkEntry(
            name=path.stem,
            task=known["TASK"],
            dims=known["DIMS"],
            size=known["SIZE"],
            about=_about(path),
            pretrained="WEIGHTS" in known,
            template=known.get("TEMPLATE"),
        )
    return found


def packages(template: str) -> tuple[str, ...]:
    """The packages of workspace/ that a template imports."""
    return _constants(TEMPLATES / f"{template}.py").get("PACKAGES", ())


def constants(network: str) -> dict[str, Any]:
    """The plain constants of a network's file."""
    return _constants(NETWORKS / f"{network}.py")


def fields(template: str) -> tuple[str, ...]:
    """The names of a template's settings."""
    return tuple(_settings(TEMPLATES / f"{template}.py"))


def catalogue(task: Task | None = None) -> Catalogue:
    """What the Module Architect may choose from, for one task or all: what can run here."""
    known = [entry for entry in templates().values() if entry.needs is None or find_spec(entry.needs)]
    offered = {None, *(entry.name for entry in known)}
    return Catalogue(
        templates=tuple(entry for entry in known if task in (None, entry.task)),
        networks=tuple(e for e in networks().values() if task in (None, e.task) and e.template in offered),
    )


# ---------------------------------------------------------------------------------------------------- the check
def check_design(design: Design, index: Index) -> list[str]:
    """Everything that keeps the design from being trained on this index, one line each; empty if nothing does."""
    known_templates, known_networks = templates(), networks()
    problems = []
    if design.template not in known_templates:
        problems.append(str(unknown("template", design.template, known_templates)))
    else:
        template = known_templates[design.template]
        if template.task != index.task:
            problems.append(f"template {design.template} is for {template.task}, the index is for {index.task}")
        if design.loss not in template.losses:
            problems.append(str(unknown(f"loss of template {design.template}", design.loss, template.losses)))
        if design.preset not in template.presets:
            problems.append(str(unknown(f"preset of template {design.template}", design.preset, template.presets)))
        else:
            problems += _check_space(design, _settings(TEMPLATES / f"{design.template}.py"), template.losses)
    if design.network not in known_networks:
        problems.append(str(unknown("network", design.network, known_networks)))
    else:
        problems += _check_network(design, index, known_networks)
    problems += _check_numbers(design)
    if index.task == "classification" and len(index.labels) < 2 and not index.multilabel:
        problems.append(f"a classification needs two labels or more, the index has {', '.join(index.labels)}")
    if index.task == "segmentation" and len(index.values) != len(index.labels):
        problems.append(f"the index has {len(index.labels)} labels and {len(index.values)} mask values")
    if index.task == "anomaly_detection":
        return problems + _check_anomalies(design, index)
    return problems + _check_others(design) + (_check_reports(design) if index.task == "report_generation" else [])


def _check_anomalies(design: Design, index: Index) -> list[str]:
    problems = []
    if design.shots is None:
        problems.append("shots is missing: how many normal and as many abnormal images to learn from, as in the plan")
    held = Counter(item.label for item in index.training)
    for label in index.labels:
        if held[label] < (design.shots or 0):
            problems.append(
                f"{design.shots} shots were asked of each kind; training holds {held[label]} {label}: lower shots"
            )
    if design.intensity == "zscore":
        problems.append('intensity zscore: CLIP expects 0..1; use "unit" for 8-bit pictures, else "percentile"')
    if design.channels != 3:
        problems.append(f"channels {design.channels}: CLIP sees three; use 3, grey images are repeated")
    return problems


def _check_reports(design: Design) -> list[str]:
    sideways = 0 if design.dims == 3 else 1
    if sideways in design.flips:
        return [f"flips holds {sideways}, the left-right axis: reports tell left from right, leave it out"]
    return []


def _check_others(design: Design) -> list[str]:
    problems = []
    if design.shots is not None:
        problems.append("shots is for anomaly_detection only: leave it out")
    if design.intensity == "unit":
        problems.append('intensity unit is for anomaly_detection only: use "window", "percentile" or "zscore"')
    return problems


def _check_network(design: Design, index: Index, known: dict[str, NetworkEntry]) -> list[str]:
    problems, network = [], known[design.network]
    own = {entry.template for entry in known.values()} & {design.template}
    fits = [name for name, entry in known.items() if entry.template == (design.template if own else None)]
    serving = [name for name in fits if known[name].task == index.task and design.dims in known[name].dims]
    if design.network not in fits and design.template in templates():
        problems.append(
            f"network {design.network} does not serve template {design.template}; "
            f"use one of: {', '.join(serving) or 'none'}"
        )
    elif design.network not in serving:
        dims = " and ".join(f"{n}D" for n in network.dims)
        problems.append(
            f"network {design.network} serves {dims} {network.task}, not {design.dims}D {index.task}; "
            f"use one of: {', '.join(serving) or 'none'}"
        )
    else:
        said = constants(design.network)
        optional = {option for name in serving for option in constants(name).get("OPTIONS", ())}
        preset = _preset(design) if design.template in templates() else ()
        for option in sorted({*preset, *design.space} & optional - {*said.get("OPTIONS", ())}):
            problems.append(f"network {design.network} does not know {option}: leave it out")
        divisor = said.get("DIVISOR", {}).get(design.dims, 1)
        if any(n % divisor for n in design.size):
            better = [max(1, round(n / divisor)) * divisor for n in design.size]
            problems.append(
                f"size {_times(design.size)}: network {design.network} needs multiples of {divisor}, "
                f"such as {_times(better)}"
            )
        elif divisor > 1 and max(design.size) == divisor:
            problems.append(
                f"size {_times(design.size)}: network {design.network} shrinks it to a single voxel, which cannot be "
                f"normalised; give one axis {2 * divisor} or more"
            )
    return problems


def _check_numbers(design: Design) -> list[str]:
    problems, knob = [], design.space.get("batch", Knob(choices=(design.batch,)))
    tried = [value for value in (*knob.choices, knob.high) if isinstance(value, int | float)]
    batch = int(max(design.batch, *tried))
    if min(design.size) < 8:
        problems.append(f"size {_times(design.size)}: every axis needs 8 voxels or more")
    elif (voxels := batch * math.prod(design.size)) > MOST_VOXELS:
        problems.append(
            f"a batch of {batch} x {_times(design.size)} is {voxels / 1e6:.0f} million voxels, more than the "
            f"{MOST_VOXELS / 1e6:.0f} million that fit in memory: lower size or batch"
        )
    if design.spacing is not None and min(design.spacing) <= 0:
        problems.append(f"spacing {_times(design.spacing)}: every axis must be above 0 mm")
    if design.window is not None and design.window[0] >= design.window[1]:
        problems.append(f"window {design.window[0]:g} to {design.window[1]:g}: the first must be below the second")
    return problems


def _check_space(design: Design, settings: dict[str, tuple[str, str]], losses: tuple[str, ...]) -> list[str]:
    """Each knob names a plain setting, holds values it can take, and the design's own value is one of them."""
    problems, preset = [], _preset(design)
    for name, knob in design.space.items():
        if name not in settings:
            tunable = [setting for setting, (kind, _) in settings.items() if _tunable(setting, kind)]
            problems.append(f"space: {unknown('setting', name, tunable)}")
            continue
        kind, default = settings[name]
        tried = list(knob.choices) or [knob.low, knob.high]
        own = getattr(design, name, preset.get(name, literal(default)))
        if not _tunable(name, kind):
            problems.append(f"space: {name} cannot be tuned, it follows from the data; leave it out")
        elif not all(_fits(value, kind) for value in tried) or (kind == "int" and not knob.choices and not knob.whole):
            problems.append(
                f"space: {name} is of kind {kind}, but the knob holds {knob.model_dump(exclude_defaults=True)}"
            )
        elif name == "loss" and set(tried) - set(losses):
            problems.append(
                f"space: loss may be one of {', '.join(losses)}, the knob holds {', '.join(map(str, tried))}"
            )
        elif wrong := [value for value in tried if not _valid(design, name, value)]:
            problems.append(f"space: {name} cannot be {wrong[0]}")
        elif own not in tried if knob.choices else not knob.low <= own <= knob.high:
            problems.append(f"space: the design's own {name}, {own}, is not in its knob; the first trial starts there")
    return problems


def _tunable(name: str, kind: str) -> bool:
    return kind in ("int", "float", "str", "bool") and name not in FIXED


def _fits(value: Any, kind: str) -> bool:
    if kind == "int":
        return not isinstance(value, bool | str) and float(value).is_integer()
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value).__name__ == kind


def _valid(design: Design, name: str, value: Any) -> bool:
    """Whether a Design may hold this value; true for settings that it does not have."""
    if name not in Design.model_fields:
        return True
    try:
        Design.model_validate(design.model_dump() | {name: value})
    except ValidationError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------- the folder
def emit(design: Design, index: Index, folder: Path, backbone: str = "") -> Path:
    """Write the design as a folder that trains on its own; the same design and labels give the same bytes.

    Args:   backbone: the architecture of a network that starts from pretrained weights.
    Raises: M3Error: the design cannot be trained on this index; all reasons in one line.
    """
    if problems := check_design(design, index):
        raise M3Error(f"The design cannot be built: {'; '.join(problems)}.")
    template = TEMPLATES / f"{design.template}.py"
    chosen = _preset(design) | design.model_dump()
    chosen |= index.model_dump(include={"labels", "values", "multilabel", "about"}) | {"backbone": backbone}
    settings = {name: chosen[name] for name in _settings(template) if name in chosen}
    folder.mkdir(parents=True, exist_ok=True)
    text = _replaced(template.read_text(encoding="utf-8"), {"SETTINGS": _call(settings), "SPACE": _space(design.space)})
    (folder / "train.py").write_text(text, encoding="utf-8")
    shutil.copyfile(NETWORKS / f"{design.network}.py", folder / "network.py")
    for name in (*HELPERS, *_constants(template).get("HELPERS", ())):
        shutil.copyfile(TEMPLATES / name, folder / name)
    for part in (SOURCES, *(HERE / name for name in packages(design.template))):
        shutil.copytree(part, folder / part.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _preset(design: Design) -> dict[str, Any]:
    """The settings that the design's preset gives its template, beside what the design says itself."""
    return _constants(TEMPLATES / f"{design.template}.py").get("PRESETS", {}).get(design.preset, {})


def diff(folder: Path, context: int = 3) -> str:
    """What train.py changes of its template, as a unified diff.

    Args:   context: unchanged lines that are shown around a change.
    Raises: UsageError: the folder holds no train.py.
    """
    path = folder / "train.py"
    if not path.is_file():
        raise UsageError(f"{folder} holds no train.py: it is not an emitted folder.")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)

    def changed(name: str, around: int) -> list[str]:
        before = (TEMPLATES / f"{name}.py").read_text(encoding="utf-8").splitlines(keepends=True)
        return list(difflib.unified_diff(before, lines, f"templates/{name}.py", "train.py", n=around))

    nearest = min(templates(), key=lambda name: len(changed(name, 3)))
    return "".join(changed(nearest, context))


def _replaced(source: str, statements: dict[str, str]) -> str:
    """The source with the top-level assignments to these names written anew."""
    lines = source.splitlines(keepends=True)
    for node in reversed(parse(source).body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in statements:
            name = node.targets[0].id
            lines[node.lineno - 1 : node.end_lineno] = [f"{name} = {statements[name]}\n"]
    return "".join(lines)


def _call(settings: dict[str, Any]) -> str:
    return "Settings(\n" + "".join(f"    {name}={_text(value, name)},\n" for name, value in settings.items()) + ")"


def _space(space: dict[str, Knob]) -> str:
    if not space:
        return "{}"
    return "{\n" + "".join(f"    {_text(name)}: {_distribution(knob)},\n" for name, knob in space.items()) + "}"


def _distribution(knob: Knob) -> str:
    if knob.choices:
        return f"CategoricalDistribution({_text(knob.choices)})"
    kind, number = ("IntDistribution", int) if knob.whole else ("FloatDistribution", float)
    return f"{kind}({number(knob.low or 0)!r}, {number(knob.high or 0)!r}{', log=True' if knob.log else ''})"


def _text(value: Any, name: str = "") -> str:
    """A Python literal as ruff formats it: double quotes, and a tuple that is too long has one entry a line."""
    if isinstance(value, str):
        return repr(value) if '"' in value and "'" not in value else json.dumps(value, ensure_ascii=False)
    if not isinstance(value, tuple):
        return repr(value)
    entries = [_text(entry) for entry in value]
    flat = f"({', '.join(entries)}{',' if len(entries) == 1 else ''})"
    if len(flat) + len(f"    {name}=,") <= 120:
        return flat
    return "(\n" + "".join(f"        {entry},\n" for entry in entries) + "    )"


# ---------------------------------------------------------------------------------------------------- reading files
def _constants(path: Path) -> dict[str, Any]:
    """The module's plain constants: name -> value."""
    found = {}
    for node in _tree(path).body:
        if isinstance(node, ast.Assign):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue  # SETTINGS and SPACE are calls
            target = node.targets[0]
            together = isinstance(target, ast.Tuple)
            names, values = (target.elts, value) if together else ([target], [value])
            found |= {name.id: part for name, part in zip(names, values, strict=True) if isinstance(name, ast.Name)}
    return found


def _settings(path: Path) -> dict[str, tuple[str, str]]:
    """The fields of the template's `Settings`: name -> (type, default), both as Python text."""
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef) and node.name == "Settings":
            return {
                field.target.id: (ast.unparse(field.annotation), ast.unparse(field.value))
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value
            }
    raise ValueError(f"{path} has no class Settings")


def _about(path: Path) -> str:
    return (ast.get_docstring(_tree(path)) or "").split("\n")[0]


@cache
def _tree(path: Path) -> ast.Module:
    return parse(path.read_text(encoding="utf-8"))


def _times(numbers: Any) -> str:
    return " x ".join(f"{n:g}" for n in numbers)
