"""A CLIP of 24 blocks with 32 features, and what the reference code of MVFA computes with it.

`golden/mvfa_micro.pt` holds numbers only: random weights, two images, a normal one, and the reference's results.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path

import open_clip
import torch
from open_clip.model import resize_pos_embed

from m3dspy.workspace import mvfa


@cache
def golden():
    return torch.load(Path(__file__).parent / "golden" / "mvfa_micro.pt", weights_only=True)


def micro_clip(size=70):
    """The golden file's CLIP, its positions resized from 336 pixels to `size`."""
    config = deepcopy(golden()["config"])
    config["vision_cfg"]["image_size"] = size
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.CLIP(**config).eval()
    weights = {name: value.float() for name, value in golden()["visual_fp16"].items()}
    resize_pos_embed(weights, clip)
    clip.load_state_dict(weights, strict=False)
    return clip


def micro(size=70, **given):
    """MVFA on it, with the golden file's adapters."""
    model = mvfa.MVFA(micro_clip(size), **given)
    mvfa.load_adapters(model, golden()["adapters_fp16"])
    return model


def images():
    return golden()["img_u8"].float() / 255


def stack(tokens):
    return torch.stack(list(tokens))
