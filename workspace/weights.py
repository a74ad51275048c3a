"""Pretrained weights: what may be named with --weights, which networks of the catalogue start from them, their file.

openai                      a name of open_clip          clip.safetensors                a CLIP's file
resnet50.a1_in1k            a name of timm, for 2D       resnet50=radimagenet.pt         a file of timm's resnet50
medicalnet_resnet18         MedicalNet's, for 3D         medicalnet_resnet18=r18.pth     a file of that
openai-community/gpt2       a language model of the      gpt2=FOLDER                     its folder, for the decoder of
                            Hugging Face hub                                             a report generation
"""

import json
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from m3dspy.errors import UsageError
from m3dspy.signatures.values import NetworkEntry, Task
from m3dspy.workspace.emit import constants, networks

MEDICALNET = tuple(f"medicalnet_resnet{depth}" for depth in (10, 18, 34, 50))
HUB = "TencentMedicalNet/MedicalNet-Resnet{depth}", "resnet_{depth}_23dataset.pth"
FILE = "model.safetensors"  # of timm's on the hub
OF_LANGUAGE = ("config.json", "tokenizer.json", "*.safetensors")  # all that is read of a language model's folder
HUB_NAME = re.compile(r"(?!.*\.(?:pth?|bin|ckpt|safetensors)$)\w[\w.-]*/\w[\w.-]*|(distil)?gpt2(-medium|-large|-xl)?")
PROBE = {2: (224, 224), 3: (32, 32, 32)}  # pixels or voxels at which a file is tried


def check(weights: str) -> None:
    """Refuse what is neither a file or folder nor a name of weights that a network of ours starts from.

    Raises: UsageError.
    """
    name, file = _parts(weights)
    if file is not None:
        if not file.exists():
            raise UsageError(f"There is no file {file}. Give --weights {name}=FILE.")
        if file.is_dir():
            _check_folder(name, file)
        elif name and not _is_backbone(name):
            raise UsageError(
                f"No network is called {name!r}. In NAME=FILE the name is one of timm's, such as resnet50 or "
                f"convnext_tiny, or {', '.join(MEDICALNET)}."
            )
    elif not HUB_NAME.fullmatch(name) and not _is_pretrained(name):
        known = sorted({tag for entry in networks().values() for tag in _tags(entry.name)})
        if name not in known:
            raise UsageError(
                f"There are no weights {weights!r}. Give the file of a CLIP, or a name that open_clip can download: "
                f"{', '.join(known)}; for a diagnosis a name of timm such as resnet50.a1_in1k, one of "
                f"{', '.join(MEDICALNET)}, or a file as resnet50=FILE; for reports a language model of the hub such as "
                "openai-community/gpt2, or its folder as gpt2=FOLDER."
            )


def full(weights: str) -> str:
    """The same with the whole path of its file."""
    name, file = _parts(weights)
    if file is None or not file.exists():
        return weights
    return f"{name}={file.resolve()}" if name else str(file.resolve())


def task_of(weights: str) -> Task:
    """What they are for: a CLIP's for anomaly detection, a language model's for reports, others for a diagnosis."""
    if _is_of_language(weights):
        return "report_generation"
    return "classification" if _is_backbone(_parts(weights)[0]) else "anomaly_detection"


def file_in(weights: str) -> str:
    """The path of its file; of a mere name "FILE", for a person to fill in."""
    return str(_parts(weights)[1] or "FILE")


def backbone(weights: str | None, network: str) -> str:
    """The name of the architecture that a network or its decoder takes on with these weights; "" if it has but one."""
    if not weights:
        return ""
    if constants(network)["TASK"] == "report_generation":
        name, folder = _parts(weights)
        return name or _kind(folder or Path())
    return _parts(weights)[0] if constants(network).get("WEIGHTS") else ""


def file_of(weights: str, network: str) -> Path:
    """The file or folder of a network's weights: the one given, or that which is downloaded under this name.

    Raises: UsageError: there is none of this name for the network, or it cannot be had.
    """
    name, file = _parts(weights)
    if file is not None:
        return file
    known = constants(network)
    if known["TASK"] == "report_generation":
        return _downloaded_folder(name)
    if "OPEN_CLIP" not in known:
        return _downloaded(name, known["WEIGHTS"])
    from m3dspy.workspace.mvfa.backbone import weights_file

    try:
        return weights_file(known["OPEN_CLIP"], weights)
    except ValueError as error:
        raise UsageError(f"{error}.") from error


def fitting(weights: str, offered: Sequence[NetworkEntry], dims: int, channels: int) -> tuple[NetworkEntry, ...]:
    """The networks that these weights are of. Args: dims, channels: of the images.

    Raises: UsageError: they are of none, or no file of weights that can be read.
    """
    if any("OPEN_CLIP" in constants(entry.name) for entry in offered):
        return _clips(weights, offered)
    if any(entry.task == "report_generation" for entry in offered):
        return _with_decoder(weights, offered)
    name, _ = _parts(weights)
    if not _is_backbone(name):
        raise UsageError(
            f"{weights} does not say of which network it is. Give --weights NAME=FILE, such as resnet50={weights}, or "
            "a name of timm such as resnet50.a1_in1k."
        )
    library = "medicalnet" if name in MEDICALNET else "timm"
    found = tuple(entry for entry in offered if constants(entry.name).get("WEIGHTS") == library and dims in entry.dims)
    if not found:
        other = f"{', '.join(MEDICALNET)} are for these" if dims == 3 else "timm's networks are for these"
        raise UsageError(f"{name} does not read {dims}D images; {other}. Give others with --weights.")
    for entry in found:
        file = file_of(weights, entry.name)
        how = {"backbone": name, "channels": channels, "labels": ("a", "b"), "size": PROBE[dims], "dropout": 0.0}
        try:
            import_module(f"m3dspy.workspace.networks.{entry.name}").network(SimpleNamespace(**how), file)
        except ValueError as error:
            raise UsageError(f"{file} does not fit {name}: {error}. Give others with --weights.") from error
    return found


def _clips(weights: str, offered: Sequence[NetworkEntry]) -> tuple[NetworkEntry, ...]:
    if not Path(weights).is_file():
        if found := tuple(entry for entry in offered if weights in _tags(entry.name)):
            return found
        raise UsageError(f"{weights} is no CLIP, and an anomaly detection reads nothing else. Give one with --weights.")
    from m3dspy.workspace.mvfa.backbone import read_weights

    try:
        embedding = read_weights(Path(weights)).get("visual.conv1.weight")
    except ValueError as error:
        raise UsageError(
            f"{weights} holds no weights that can be read safely: neither safetensors nor what torch saves. "
            "Give another file with --weights."
        ) from error
    if embedding is None or embedding.ndim != 4:
        raise UsageError(f"{weights} is no CLIP with a vision transformer. Give another file with --weights.")
    width, _, patch, _ = embedding.shape
    sizes = {entry.name: (constants(entry.name)["WIDTH"], constants(entry.name)["PATCH"]) for entry in offered}
    if not (found := tuple(entry for entry in offered if sizes[entry.name] == (width, patch))):
        known = ", ".join(f"{name} ({one} wide, patches of {other})" for name, (one, other) in sizes.items())
        raise UsageError(
            f"{weights} is of a CLIP {width} wide with patches of {patch} pixels, which no network here is: {known}."
        )
    return found


def _with_decoder(weights: str, offered: Sequence[NetworkEntry]) -> tuple[NetworkEntry, ...]:
    """The encoders of reports: each of them goes with a language model."""
    if not _is_of_language(weights):
        raise UsageError(
            f"{weights} is no language model, and a report generation reads nothing else. Give one of the hub such as "
            "openai-community/gpt2, or its folder: --weights gpt2=FOLDER."
        )
    folder = file_of(weights, offered[0].name)
    _check_folder("", folder)
    from m3dspy.workspace.templates.writer import pretrained

    try:
        pretrained(folder)
    except ValueError as error:
        raise UsageError(f"{folder} holds {error}. Give another with --weights.") from error
    return tuple(entry.model_copy(update={"pretrained": True}) for entry in offered)


def _is_of_language(weights: str) -> bool:
    """Whether they are a language model's, of a folder or of the hub."""
    name, file = _parts(weights)
    return file.is_dir() if file else bool(HUB_NAME.fullmatch(name))


def _check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that holds no language model, or none of this name."""
    if lacking := [part for part in OF_LANGUAGE if not any(folder.glob(part))]:
        raise UsageError(
            f"{folder} lacks {', '.join(lacking)}: a language model's folder holds {', '.join(OF_LANGUAGE)}, and "
            "nothing else in it is read. Give another with --weights."
        )
    if name and name != (kind := _kind(folder)):
        raise UsageError(f"{folder} holds a {kind or 'model without a type'}, not {name}. Give --weights {folder}.")


def _kind(folder: Path) -> str:
    """The architecture that a folder's config.json names."""
    try:
        return str(json.loads((folder / "config.json").read_text())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _parts(weights: str) -> tuple[str, Path | None]:
    """The name that stands in it, "" for a file or folder alone; and that, if it is one."""
    if Path(weights).is_file() or (Path(weights) / "config.json").is_file():
        return "", Path(weights)
    name, given, file = weights.partition("=")
    return name, Path(file) if given else None


def _is_backbone(name: str) -> bool:
    """Whether a network with weights of its own is called so."""
    if name in MEDICALNET:
        return True
    import timm

    return bool(name) and timm.is_model(name)


def _is_pretrained(name: str) -> bool:
    """Whether weights can be downloaded under this name."""
    if name in MEDICALNET:
        return True
    import timm

    return timm.is_model_pretrained(name)


def _downloaded(name: str, library: str) -> Path:
    from huggingface_hub import hf_hub_download

    if library == "medicalnet":
        depth = name.removeprefix("medicalnet_resnet")
        repository, file = (text.format(depth=depth) for text in HUB)
    else:
        import timm

        config = timm.get_pretrained_cfg(name)
        repository, file = (config and config.hf_hub_id) or "", (config and config.hf_hub_filename) or FILE
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # whatever a hub or a proxy answers
        raise UsageError(
            f"The weights {name!r} could not be downloaded ({type(error).__name__}). Give their file: "
            f"--weights {name}=FILE."
        ) from error


def _downloaded_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HOME

    folder = Path(HF_HOME) / "m3dspy" / name.replace("/", "--")  # files, where the hub's own cache holds links
    try:
        return Path(snapshot_download(name, local_dir=folder, allow_patterns=list(OF_LANGUAGE)))
    except Exception as error:  # whatever a hub or a proxy answers
        raise UsageError(
            f"The language model {name!r} could not be downloaded ({type(error).__name__}). Give its folder: "
            "--weights gpt2=FOLDER."
        ) from error


def _tags(network: str) -> list[str]:
    """The names of weights that open_clip knows for a network; none for one that is no CLIP."""
    if "OPEN_CLIP" not in (known := constants(network)):
        return []
    import open_clip

    return open_clip.list_pretrained_tags_by_model(known["OPEN_CLIP"])
