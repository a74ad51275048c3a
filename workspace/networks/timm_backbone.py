"""A 2D network of timm, chosen by the weights that were given for it: ResNets, ConvNeXts, vision transformers, ...

Wightman 2019, doi:10.5281/zenodo.4414861. Weights of 1000 photographs' classes or of radiographs serve alike: the first
layer is fitted to the channels, the last one is new.
"""

from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.models import clean_state_dict

TASK = "classification"
DIMS = (2,)
SIZE = "strong"
WEIGHTS = "timm"  # whose pretrained weights it starts from


def network(s, weights=None):
    """Images (B, channels, *size) to logits (B, labels). Args: weights: a file of `s.backbone`'s; None: random.

    Raises: ValueError: no such network, an image size that it cannot take, or a file that is not of it.
    """
    name = s.backbone or "resnet18"
    if weights is None:
        return _built(name, s)
    with torch.random.fork_rng(devices=[]):  # what is not filled is the same in both
        torch.manual_seed(0)
        random = _built(name, s).state_dict()
        torch.manual_seed(0)
        net = _built(name, s, pretrained=True, pretrained_cfg_overlay={"state_dict": _read(weights)})
    head = net.get_classifier()  # pyright: ignore[reportCallIssue]  timm's models are typed as plain modules
    new = {id(tensor) for tensor in head.parameters()} if isinstance(head, torch.nn.Module) else set()
    learnt = {key for key, tensor in net.named_parameters() if tensor.ndim > 1 and id(tensor) not in new}
    missing = sorted(key for key in learnt if torch.equal(net.state_dict()[key], random[key]))
    if missing:
        raise ValueError(
            f"The weights lack {missing[0]} and {len(missing) - 1} more of {len(learnt)} tensors of {name}"
        )
    if isinstance(head, torch.nn.Linear):
        head.reset_parameters()  # by the seed of this training
    return net


def _read(path):
    """The tensors of a checkpoint by name; no code in it is run. What a file is, is told by its beginning."""
    try:
        with Path(path).open("rb") as file:
            safe = file.read(9)[8:] == b"{"
        held = safetensors.torch.load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        inner: list[Any] = [held[key] for key in ("state_dict_ema", "model_ema", "state_dict", "model") if key in held]
        return clean_state_dict(*inner[:1] or [held])
    except Exception as error:
        raise ValueError(f"this is no checkpoint that can be read safely ({type(error).__name__})") from error


def _built(name, s, **how):
    known = timm.get_pretrained_cfg(name)
    fixed = {"img_size": tuple(s.size)} if known and known.fixed_input_size else {}
    try:
        return timm.create_model(
            name, in_chans=s.channels, num_classes=len(s.labels), drop_rate=s.dropout, **fixed, **how
        )
    except (AssertionError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} cannot be built for {s.size} pixels from these weights: {reason[:300]}") from error
