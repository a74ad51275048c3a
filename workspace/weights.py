"""The weights of a pretrained CLIP: where they are, and which networks of the catalogue they fit."""

from collections.abc import Sequence
from pathlib import Path

from m3dspy.errors import UsageError
from m3dspy.signatures.values import NetworkEntry
from m3dspy.workspace.emit import constants, networks


def check(weights: str) -> None:
    """Refuse what is neither a file nor a name that open_clip knows for a network of ours.

    Raises: UsageError.
    """
    if Path(weights).is_file():
        return
    known = sorted({tag for entry in networks().values() for tag in _tags(entry.name)})
    if weights not in known:
        raise UsageError(
            f"There are no weights {weights!r}. Give the file of a CLIP, or a name that open_clip can download: "
            f"{', '.join(known)}."
        )


def file_of(weights: str, network: str) -> Path:
    """The file of a network's weights: the one given, or that which open_clip downloads under this name.

    Raises: UsageError: open_clip has none of this name for the network, or cannot be reached.
    """
    if (path := Path(weights)).is_file():
        return path
    from m3dspy.workspace.mvfa.backbone import weights_file

    try:
        return weights_file(constants(network)["OPEN_CLIP"], weights)
    except ValueError as error:
        raise UsageError(f"{error}.") from error


def fitting(weights: str, offered: Sequence[NetworkEntry]) -> tuple[NetworkEntry, ...]:
    """The networks that these weights are of.

    Raises: UsageError: they are of none, or no file of weights that can be read.
    """
    if not Path(weights).is_file():
        return tuple(entry for entry in offered if weights in _tags(entry.name))
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


def _tags(network: str) -> list[str]:
    """The names of weights that open_clip knows for a network; none for one that is no CLIP."""
    if "OPEN_CLIP" not in (known := constants(network)):
        return []
    import open_clip

    return open_clip.list_pretrained_tags_by_model(known["OPEN_CLIP"])
