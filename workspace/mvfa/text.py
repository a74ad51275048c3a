"""The two texts that tokens are compared with: what is shown, normal and abnormal, each the mean of many phrasings."""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import text_fingerprint
from .features import read_array, write_array

_LOOKS = [
    "bad",
    "low resolution",
    "cropped",
    "bright",
    "dark",
    "close-up",
    "black and white",
    "jpeg corrupted",
    "blurry",
    "good",
]
_WHICH = ["a", "the", "my", "one", "a cool", "the cool", "a large", "the large", "a small", "the small"]
_SCENES = ["there is a", "there is the", "this is a", "this is the", "this is one"]
TEMPLATES = (  # WinCLIP's, which MVFA uses: Jeong et al. 2023, arXiv:2303.14814
    *(f"a {look} photo of {article} {{}}." for look in _LOOKS for article in ("a", "the")),
    *(f"a photo of {which} {{}}." for which in _WHICH),
    *(f"{scene} {{}} in the scene." for scene in _SCENES),
)

_ROWS = 64  # prompts at a time


@dataclass(frozen=True)
class States:
    """Words for normal and abnormal, "{}" standing for what is shown, and phrasings to put each of them in."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...] = TEMPLATES

    def prompts(self, about: str) -> tuple[list[str], list[str]]:
        """All sentences for normal, and for abnormal."""
        normal, abnormal = (
            [template.format(state.format(about)) for state in states for template in self.templates]
            for states in (self.normal, self.abnormal)
        )
        return normal, abnormal


PAPER_STATES = States(
    ("{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect", "{} without damage"),
    ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"),
)
MEDICAL_STATES = States(
    ("normal {}", "healthy {}", "unremarkable {}", "{} without any lesion", "{} without abnormality"),
    ("abnormal {}", "diseased {}", "pathological {}", "{} with a lesion", "{} with an abnormality"),
    ("{}.", "an image of {}.", "a medical image of {}.", "a photo of the {}.", "a close-up of the {}."),
)


def text_features(
    clip: nn.Module,
    about: str,
    states: States = MEDICAL_STATES,
    cache: Path | None = None,
    folders: Sequence[Path] = (),
) -> Tensor:
    """(E, 2), normal and abnormal, each of length 1: the mean of its prompts' features of length 1.

    Args: about: what the images show: "liver CT".  cache: folder to keep the result in.
          folders: others to look for it, only read.
    """
    if cache is None and not folders:
        return _computed(clip, about, states)
    told = repr((text_fingerprint(clip), about, astuple(states)))
    name = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    known = read_array([*folders, *([cache] if cache else [])], name)
    if known is not None:
        return torch.from_numpy(known)
    found = _computed(clip, about, states).cpu()
    if cache is not None:
        write_array(cache, name, found.numpy())
    return found


@torch.no_grad()
def _computed(clip: Any, about: str, states: States) -> Tensor:
    words = open_clip.SimpleTokenizer(context_length=clip.context_length)
    sides = []
    for prompts in states.prompts(about):
        features = torch.cat([encoded(clip, part) for part in words(prompts).split(_ROWS)])
        sides.append(F.normalize(F.normalize(features, dim=-1).mean(0), dim=-1))
    return torch.stack(sides, 1)


def encoded(clip: Any, tokens: Tensor) -> Tensor:
    """(N, E): what `clip.encode_text` returns, computed up to the longest prompt's end only.

    Later tokens change nothing: each sees those before it, and the feature is read at a prompt's end.
    """
    tokens = tokens.to(next(clip.parameters()).device)
    if getattr(clip, "text_pool_type", None) != "argmax" or clip.attn_mask is None:
        return clip.encode_text(tokens)
    length = int(tokens.argmax(1).max()) + 1
    tokens = tokens[:, :length]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    x = x[torch.arange(len(x), device=x.device), tokens.argmax(1)]
    if clip.text_projection is None:
        return x
    return clip.text_projection(x) if isinstance(clip.text_projection, nn.Linear) else x @ clip.text_projection
