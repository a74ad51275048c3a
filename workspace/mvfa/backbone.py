"""CLIPs of open_clip: with weights from a file or by name, or random ones that are the same everywhere."""

import difflib
import hashlib
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import open_clip
import safetensors.torch
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

OFFSET = 0.4  # of the size of what the patches of a normalised image give
Activation = Literal["own", "gelu", "quick_gelu"]


def clip_model(
    network: str,
    size: int | tuple[int, int],
    weights: str | Path | Mapping[str, Tensor] | None = None,
    activation: Activation = "own",
) -> nn.Module:
    """A CLIP of open_clip for images of `size`, in float32 and for evaluation.

    Args: network: its name in open_clip.  size: rows and columns, in pixels.  weights: a file, tensors by name, or the
          name of weights that open_clip can download; None: random, from a fixed seed.
          activation: of both towers; "own": as the network's name says. OpenAI's weights were trained with quick_gelu;
          MVFA's authors ran them, and trained their published adapters, with gelu.
    Raises: ValueError: no such network or weights, or weights that do not fit.
    """
    config = _config(network)
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    patch = config["vision_cfg"]["patch_size"]
    if min(sizes) < patch:
        raise ValueError(f"Images of {sizes[0]} x {sizes[1]} pixels are smaller than a patch of {network}, {patch}")
    config["vision_cfg"]["image_size"] = sizes
    if activation != "own":
        config["quick_gelu"] = activation == "quick_gelu"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        clip = open_clip.CLIP(**config)
        _tell_brightness(clip.visual)
    if weights is not None:
        fill(clip, weights if isinstance(weights, Mapping) else read_weights(weights_file(network, weights)))
    return clip.eval()


@torch.no_grad()
def _tell_brightness(visual: Any) -> None:
    """Give all tokens of a random tower one offset.

    The norm before its blocks keeps the direction of a token, and bright and dark patches of one form differ in length
    only. From a common offset their directions differ, too.
    """
    visual.positional_embedding += OFFSET * torch.randn(visual.positional_embedding.shape[1])


def _config(network: str) -> dict[str, Any]:
    config = open_clip.get_model_config(network)
    if config is None:
        near = difflib.get_close_matches(network, open_clip.list_models(), 1)
        raise ValueError(f"open_clip has no network {network!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    if not config["vision_cfg"].get("patch_size") or "multimodal_cfg" in config:
        raise ValueError(f"{network} has no plain vision transformer; use ViT-B-16, ViT-L-14-336, ...")
    if "custom_text" in config or "hf_tokenizer_name" in config["text_cfg"]:
        raise ValueError(f"{network} reads texts in another way than CLIP; use ViT-B-16, ViT-L-14-336, ...")
    return deepcopy(config)


def weights_file(network: str, weights: str | Path) -> Path:
    """The file of a network's weights: the one given, or that which open_clip downloads under this name.

    Raises: ValueError: open_clip has none of this name for the network, or cannot reach them.
    """
    if Path(weights).is_file():
        return Path(weights)
    known = open_clip.list_pretrained_tags_by_model(network)
    found = open_clip.get_pretrained_cfg(network, str(weights))
    if not found:
        raise ValueError(
            f"{weights} is neither a file nor weights that open_clip knows for {network}: {', '.join(known) or 'none'}"
        )
    try:
        return Path(open_clip.download_pretrained(found))
    except Exception as error:  # whatever a hub or a proxy answers
        raise ValueError(
            f"The weights {weights!r} of {network} could not be downloaded ({type(error).__name__}); "
            "give the path of a file instead"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, under open_clip's names; no code in it is run.

    It may be .safetensors, a state dict saved by torch (or a checkpoint that holds one), OpenAI's own TorchScript
    archive, or a full checkpoint of MVFA's authors, which names CLIP's tensors `clipmodel.*`.
    Raises: ValueError: it is none of these.
    """
    try:
        found = safetensors.torch.load_file(path) if _is_safetensors(path) else _saved(path)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{path} is no checkpoint that can be read safely: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no tensors by name; give a state dict of CLIP")
    names = {name.removeprefix("module.").removeprefix("clipmodel."): name for name in found}
    other = ("image_encoder.", "seg_adapters.", "det_adapters.")  # the image tower again; the adapters
    return {
        short: found[name]
        for short, name in names.items()
        if isinstance(found[name], Tensor) and not short.startswith(other)
    }


def _is_safetensors(path: Path) -> bool:
    """Told by its beginning: the length of a header in JSON, then the header. A name may have lost its suffix."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _saved(path: Path) -> Any:
    if zipfile.is_zipfile(path) and any(name.endswith("constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        return torch.jit.load(path, map_location="cpu").state_dict()
    found = torch.load(path, map_location="cpu", weights_only=True)
    return found.get("state_dict", found) if isinstance(found, Mapping) else found


def fill(clip: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a CLIP these weights; positions are resized to its grid, in float32.

    Raises: ValueError: a tensor is missing, or has another shape.
    """
    wanted = clip.state_dict()
    given = {name: value.float() for name, value in weights.items() if name in wanted}
    resize_pos_embed(given, clip)
    if missing := [name for name in wanted if name not in given]:
        raise ValueError(
            f"The weights lack {missing[0]} and {len(missing) - 1} more of {len(wanted)} tensors; "
            "give a full CLIP (both towers) of this network"
        )
    for name, value in given.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{name} is {_shape(value)} in the weights and {_shape(wanted[name])} in the network; "
                "choose the network that the weights are of"
            )
    clip.load_state_dict(given)


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def fingerprint(clip: Any) -> str:
    """A hash of the image tower: its weights and its form, the activation included."""
    return _hashed(clip.visual.state_dict(), repr(clip.visual))


def text_fingerprint(clip: Any) -> str:
    """A hash of the text tower."""
    tensors = {name: value for name, value in clip.state_dict().items() if not name.startswith("visual.")}
    return _hashed(tensors, repr([part for name, part in clip.named_children() if name != "visual"]))


def _hashed(tensors: Mapping[str, Tensor], form: str) -> str:
    found = hashlib.blake2b(form.encode(), digest_size=16)
    for name, value in tensors.items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()
