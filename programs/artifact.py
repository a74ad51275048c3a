"""A compiled program on disk: written, verified, loaded. JSON only, nothing is unpickled.

program.json          instructions, descriptions and demonstrations of every predictor; `dspy.Module.load` reads it
manifest.json         what compiled it and what speaks for it; written last
prompts/PREDICTOR.md  the same for people: instructions before and after, demonstrations as a model sees them
"""

import hashlib
import json
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import dspy
from pydantic import Field, ValidationError, field_validator

from m3dspy.errors import DataError, unknown
from m3dspy.programs import state
from m3dspy.programs.builder import Builder
from m3dspy.signatures.values import ROLES, Success, Value
from m3dspy.workspace.runs import write_atomic

SCHEMA = 1
_HERE = Path(__file__).resolve().parent
_COMPILED = _HERE / "compiled"
_PACKAGES = ("m3dspy", "dspy", "gepa", "optuna")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")

Scalar = str | int | float | bool | None


class Usage(Value):
    """What one LM was asked while compiling, for one role ("" for calls that belong to none)."""

    lm: str
    role: str
    calls: int
    input_tokens: int
    output_tokens: int
    dollars: float | None = Field(description="None: the price is not known")
    seconds: float

    @field_validator("lm")
    @classmethod
    def _no_login(cls, name: str) -> str:
        return without_login(name)


class Scores(Value):
    """How often the program succeeded, by role's name and `whole`; empty where it was not measured."""

    before: dict[str, Success] = Field(default_factory=dict)
    after: dict[str, Success] = Field(default_factory=dict)
    p: dict[str, float] = Field(default_factory=dict, description="of being no better, one-sided exact McNemar test")


class Manifest(Value):
    """What compiled a program, on what, with what effect. `write` fills in the hashes, the versions and the seal."""

    schema_version: int = SCHEMA
    name: str
    made: str = Field(description="UTC, ISO 8601")
    optimizer: str
    arguments: dict[str, Scalar] = Field(default_factory=dict)
    seed: int = 0
    student: str
    teacher: str
    adapter: str = "ChatAdapter"
    versions: dict[str, str] = Field(default_factory=dict)
    fields: dict[str, str] = Field(
        default_factory=dict, description="predictor -> hash of its fields' names, types and order"
    )
    code: str = Field(default="", description="hash of the sources that give the prompts their meaning")
    program: str = Field(default="", description="hash of program.json")
    tasks: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="part -> names of its exercises")
    tasks_hash: str = Field(default="", description="hash of what these exercises hold")
    validation: Scores = Scores()
    held_out: Scores = Scores()
    usage: tuple[Usage, ...] = ()
    routing: dict[str, str] = Field(default_factory=dict, description="role -> LM that `m3dspy run --program` gives it")
    improved: bool
    ended: str = Field(default="", description="why compiling ended early; empty if it did not")
    seal: str = Field(default="", description="hash of all the above")

    @property
    def title(self) -> str:
        """Name and hash, for people."""
        return f"{self.name} ({self.program[:12]})"

    @field_validator("student", "teacher")
    @classmethod
    def _no_login(cls, name: str) -> str:
        return without_login(name)

    @field_validator("routing")
    @classmethod
    def _roles(cls, given: dict[str, str]) -> dict[str, str]:
        if strange := [role for role in given if role not in ROLES]:
            raise ValueError(f"no role is called {', '.join(strange)}; known: {', '.join(ROLES)}")
        return given

    @field_validator("arguments", "routing")
    @classmethod
    def _no_logins(cls, given: dict[str, Scalar]) -> dict[str, Scalar]:
        return {key: without_login(value) if isinstance(value, str) else value for key, value in given.items()}


@dataclass(frozen=True)
class Loaded:
    """A compiled program, ready to run."""

    folder: Path
    builder: Builder
    manifest: Manifest


def without_login(name: str) -> str:
    """The name of an LM without a user and password in its address.

    >>> without_login("openai/qwen@http://me:secret@10.0.0.1:8000/v1")
    'openai/qwen@http://10.0.0.1:8000/v1'
    """
    return _LOGIN.sub("", name)


# ------------------------------------------------------------------------------------------------ write
def write(folder: Path, program: Builder, manifest: Manifest, before: Builder) -> Manifest:
    """Write a program; an older one in the folder stays whole until the very last files.

    Args:    manifest: without hashes, versions and seal.  before: the program as it was before compiling.
    Returns: the manifest as written.
    """
    predictors, earlier, text = state.predictors(program), state.predictors(before), state.text(program)
    manifest = manifest.model_copy(
        update={
            "versions": _versions(),
            "fields": {name: _hash(state.fields(predictor)) for name, predictor in predictors.items()},
            "code": code_hash(),
            "program": _hash(text),
        }
    )
    manifest = manifest.model_copy(update={"seal": _seal(manifest)})
    prompts = folder / "prompts"
    prompts.mkdir(parents=True, exist_ok=True)
    for name, predictor in predictors.items():
        write_atomic(prompts / f"{name}.md", state.page(name, earlier[name], predictor).encode())
    write_atomic(folder / "program.json", text.encode())
    write_atomic(folder / "manifest.json", manifest.model_dump_json(indent=1).encode())
    for stale in prompts.glob("*.md"):
        if stale.stem not in predictors:
            stale.unlink()
    return manifest


def program_hash(program: dspy.Module) -> str:
    """Equal for two programs if their prompts are."""
    return _hash(state.text(program))


# ------------------------------------------------------------------------------------------------ load
def shipped() -> list[Path]:
    """Folders of the programs that come with the package."""
    return sorted(path.parent for path in _COMPILED.glob("*/manifest.json"))


def find(name: str | Path) -> Path:
    """The folder of a program, given by its path or by the name of a shipped one.

    Raises: UsageError: there is none; the message names the nearest.
    """
    for folder in (Path(name), *(path for path in shipped() if path.name == name)):
        if folder.is_dir():
            return folder
    raise unknown("compiled program", str(name), (path.name for path in shipped()))


def load(name: str | Path, *, force: bool = False) -> Loaded:
    """A program that was verified; with `force` also one that something speaks against.

    Raises: UsageError: there is none.  DataError: it cannot be read, or something speaks against it and no `force`.
    """
    folder = find(name)
    manifest, saved = read_manifest(folder), _read_program(folder)
    if not force and (found := differences(folder)):
        more = f" And {len(found) - 3} more." if len(found) > 3 else ""
        raise DataError(
            f"The program in {folder} is not to be trusted here: {' '.join(found[:3])}{more} "
            "Compile it again, or use it all the same with --force."
        )
    builder = Builder()
    for predictor_name, predictor in builder.named_predictors():
        if predictor_name in saved:
            state.restore(predictor, saved[predictor_name])
    return Loaded(folder, builder, manifest)


def differences(folder: Path) -> list[str]:
    """Everything that speaks against using a program here, one sentence each."""
    try:
        manifest, saved = read_manifest(folder), _read_program(folder)
    except DataError as error:
        return [str(error)]
    found = []
    if manifest.schema_version != SCHEMA:
        found.append(f"Its manifest has schema {manifest.schema_version}, this m3dspy reads {SCHEMA}.")
    if manifest.seal != _seal(manifest):
        found.append("manifest.json was edited: its seal is broken.")
    if manifest.program != _hash((folder / "program.json").read_text(encoding="utf-8")):
        found.append("program.json is not the one that manifest.json was written for.")
    found += [f"{name} carries an LM of its own, which is not loaded." for name in saved if saved[name].lm]
    predictors = state.predictors(Builder())
    found += [f"It has no prompt for {name}." for name in predictors if name not in saved]
    found += [
        f"It has a prompt for {name}, which this m3dspy does not have." for name in saved if name not in predictors
    ]
    found += [
        _fields_differ(name, saved[name], predictor)
        for name, predictor in predictors.items()
        if name in saved and manifest.fields.get(name) != _hash(state.fields(predictor))
    ]
    compiled, here = (_minor(versions.get("dspy", "")) for versions in (manifest.versions, _versions()))
    if compiled != here:
        found.append(f"It was compiled with DSPy {compiled or 'of no known version'}, this is {here}.")
    if manifest.code != code_hash():
        found.append("The code of signatures and programs has changed since it was compiled.")
    return found


def _fields_differ(name: str, saved: state.Prompt, predictor: dspy.Predict) -> str:
    theirs, ours = ([field.name for field in each.signature.fields] for each in (saved, state.prompt(predictor)))
    if theirs == ours:
        return f"The types of the fields of {name} differ."
    return f"The fields of {name} differ: {', '.join(theirs)} there, {', '.join(ours)} here."


def read_manifest(folder: Path) -> Manifest:
    """What the manifest in a folder says; nothing is verified.

    Raises: DataError: there is none, or it cannot be read.
    """
    text = _read(folder / "manifest.json")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(folder / "manifest.json", error) from None


def _read_program(folder: Path) -> dict[str, state.Prompt]:
    try:
        return state.parse(_read(folder / "program.json"))
    except ValidationError as error:
        raise _damaged(folder / "program.json", error) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path.parent} holds no compiled program: there is no {path.name}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None


def _damaged(path: Path, error: ValidationError) -> DataError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return DataError(f"{path} is not as m3dspy writes it: {where}: {first['msg']}. Compile the program again.")


# ------------------------------------------------------------------------------------------------ hashes
def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seal(manifest: Manifest) -> str:
    return _hash(manifest.model_copy(update={"seal": ""}).model_dump_json())


def code_hash() -> str:
    """Of signatures, programs and the agents' tools: what the prompts mean; comments count too."""
    files = [*(_HERE.parent / "signatures").glob("*.py"), *_HERE.glob("*.py"), _HERE.parent / "workspace" / "tools.py"]
    sources = {f"{path.parent.name}/{path.name}": path.read_text(encoding="utf-8") for path in files}
    for loader in ("artifact", "state"):
        del sources[f"programs/{loader}.py"]
    return _hash(json.dumps(sources, sort_keys=True))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
