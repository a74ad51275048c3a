"""MVFA: adapters at several depths of a frozen CLIP, whose tokens are compared with texts.

Huang et al., CVPR 2024, arXiv:2403.12570. At each level two adapters (segmentation, detection) compute from the tokens
x of the trunk `h = leaky(W1 x)`, in the space of texts, and `y = leaky(W2 h)`; on goes `0.8 x + 0.1 y_seg + 0.1 y_det`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .backbone import clip_model
from .tokens import Tokens
from .trunk import blocks, checked, embedded, grid, image_tower, pooled

LEVELS = (6, 12, 18, 24)
RESIDUAL = (0.8, 0.1, 0.1)


class Adapter(nn.Module):
    """`fc1` (W -> E) makes the tokens h that are compared with texts, `fc2` (E -> W) what goes back into the trunk."""

    def __init__(self, width: int, embed: int):
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, embed, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(embed, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.fc1(x)
        return h, self.fc2(h)


class Adapters(nn.Module):
    """Both adapters of every level; all that is trained.

    Args: width, embed: of the trunk's tokens and of the texts.  levels: how many.
    """

    def __init__(self, width: int, embed: int, levels: int):
        super().__init__()
        self.seg_adapters = nn.ModuleList(Adapter(width, embed) for _ in range(levels))
        self.det_adapters = nn.ModuleList(Adapter(width, embed) for _ in range(levels))


class MVFAOutput(NamedTuple):
    """pooled: (B, E), CLIP's feature of an image (None from `MVFA.adapted`).  Tokens: h, each level (B, 1 + L, E)."""

    pooled: Tensor | None
    seg_tokens: Tokens
    det_tokens: Tokens


class MVFA(nn.Module):
    """Adapters on a CLIP of open_clip, which is frozen here.

    Args: clip: its image tower must be a vision transformer.  layers: blocks after which adapters read, counted from 1.
          bottleneck: features of h; they are compared with texts, so that only the CLIP's own number will do (None).
          residual: shares of x, y_seg and y_det in what goes on; (1, 0, 0): the trunk sees nothing of the adapters.
    Raises: ValueError: the tower is no vision transformer, or has no such blocks.
    """

    def __init__(
        self,
        clip: nn.Module,
        layers: Sequence[int] = LEVELS,
        bottleneck: int | None = None,
        residual: Sequence[float] = RESIDUAL,
    ):
        super().__init__()
        self.visual = image_tower(clip).requires_grad_(False).eval()
        self.depth = len(self.visual.transformer.resblocks)
        self.grid = grid(self.visual)
        width, embed = self.visual.conv1.out_channels, self.visual.output_dim
        self.layers = _layers(layers, self.depth)
        self.residual = _residual(residual)
        if bottleneck not in (None, embed):
            raise ValueError(
                f"A bottleneck of {bottleneck} cannot be compared with this CLIP's texts of {embed} features: "
                f"leave it out, or give {embed}"
            )
        adapters = Adapters(width, embed, len(self.layers)).to(self.visual.conv1.weight)
        self.seg_adapters, self.det_adapters = adapters.seg_adapters, adapters.det_adapters
        self._adapters = (adapters,)  # hidden from the state dict, which holds them once, under the authors' names

    @classmethod
    def from_pretrained(
        cls,
        clip_weights: str | Path,
        adapters: str | Path | None = None,
        *,
        network: str = "ViT-L-14-336-quickgelu",
        size: int | tuple[int, int] = 240,
        layers: Sequence[int] = LEVELS,
        residual: Sequence[float] = RESIDUAL,
    ) -> "MVFA":
        """MVFA on pretrained weights: a file, or a name that open_clip can download ("openai").

        Args: adapters: a checkpoint of MVFA's authors. Theirs were trained with `network="ViT-L-14-336"`: on OpenAI's
              weights, but with the activation gelu.
        Raises: ValueError: weights that cannot be had, or do not fit.
        """
        model = cls(clip_model(network, size, clip_weights), layers, residual=residual)
        if adapters is not None:
            load_adapters(model, adapters)
        return model

    @property
    def adapters(self) -> Adapters:
        """All that is trained."""
        return self._adapters[0]

    @property
    def all_frozen(self) -> bool:
        """No adapter changes what later blocks see."""
        return not any(self.residual[1:])

    def train(self, mode: bool = True) -> "MVFA":
        """The trunk stays as in evaluation."""
        super().train(mode)
        self.visual.eval()
        return self

    def compiled(self) -> "MVFA":
        """Itself, from now on run by `torch.compile`: worth its minute on a GPU, and there only."""
        self.frozen, self._through = torch.compile(self.frozen), torch.compile(self._through)  # pyright: ignore
        return self

    def forward(self, images: Tensor) -> MVFAOutput:
        """Everything, from images (B, 3, H, W)."""
        frozen = self.frozen(images)
        output, _, x = self._through(frozen, self.adapters, to_the_end=True)
        return output._replace(pooled=pooled(self.visual, blocks(self.visual, x, self.layers[-1], self.depth)))

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Tensor:
        """What no adapter touches: tokens after the first level's block, (B, 1 + L, W).

        Where all is frozen, after every level's: (levels, B, 1 + L, W).
        Raises: ValueError: images of another size or form than the tower was built for.
        """
        x = embedded(self.visual, checked(self.visual, images))
        x = blocks(self.visual, x, 0, self.layers[0])
        if not self.all_frozen:
            return x
        taps = [x]
        for begin, end in zip(self.layers, self.layers[1:], strict=False):
            taps.append(blocks(self.visual, taps[-1], begin, end))
        return torch.stack(taps)

    def adapted(self, frozen: Tensor, adapters: Adapters | None = None) -> MVFAOutput:
        """The rest, from what `frozen` returned; nothing is pooled.

        Args: adapters: others of the same form (an average of weights).
        """
        return self._through(frozen, adapters or self.adapters, to_the_end=False)[0]

    def levels(self, frozen: Tensor, adapters: Adapters | None = None) -> tuple[MVFAOutput, Tokens]:
        """As `adapted`; and what the adapters read, the trunk's own tokens, each level (B, 1 + L, W)."""
        return self._through(frozen, adapters or self.adapters, to_the_end=False)[:2]

    def _through(self, frozen: Tensor, adapters: Adapters, *, to_the_end: bool) -> tuple[MVFAOutput, Tokens, Tensor]:
        seg, det, read = (Tokens(grid=self.grid) for _ in range(3))
        x = frozen[0] if self.all_frozen else frozen
        pairs: Any = zip(adapters.seg_adapters, adapters.det_adapters, strict=True)
        for level, (ours, theirs) in enumerate(pairs):
            if level and self.all_frozen:
                x = frozen[level]
            elif level:
                x = blocks(self.visual, x, self.layers[level - 1], self.layers[level])
            read.append(x)
            seg.append(ours.fc1(x))
            det.append(theirs.fc1(x))
            if not self.all_frozen and (to_the_end or level + 1 < len(self.layers)):
                x = self._mixed(x, ours, theirs, seg[-1], det[-1])
        return MVFAOutput(None, seg, det), read, x

    def _mixed(self, x: Tensor, seg: Any, det: Any, h_seg: Tensor, h_det: Tensor) -> Tensor:
        trunk, of_seg, of_det = self.residual
        mixed = trunk * x
        if of_seg:
            mixed = mixed + of_seg * seg.fc2(h_seg)
        return mixed + of_det * det.fc2(h_det) if of_det else mixed


def _layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    found = tuple(int(layer) for layer in layers)
    if not found or list(found) != sorted(set(found)) or found[0] < 1:
        raise ValueError(f"Levels {found} must be block numbers from 1 on, each higher than the one before")
    if found[-1] > depth:
        quarters = ", ".join(str(max(1, round(depth * part / 4))) for part in (1, 2, 3, 4))
        raise ValueError(
            f"Levels {', '.join(map(str, found))} reach beyond this backbone's {depth} blocks; its quarters: {quarters}"
        )
    return found


def _residual(residual: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(share) for share in residual)
    if len(found) != 3 or (not any(found[1:]) and found[0] != 1):
        raise ValueError(f"residual is {found}; give shares of trunk, segmentation and detection: (0.8, 0.1, 0.1)")
    return found


# ------------------------------------------------------------------------------------------------ checkpoints
def save_adapters(adapters: Adapters | MVFA, path: str | Path) -> None:
    """Write the authors' form: `{"seg_adapters": {"0.fc1.0.weight": (E, W), ...}, "det_adapters": {...}}`."""
    kinds = {"seg_adapters": adapters.seg_adapters, "det_adapters": adapters.det_adapters}
    torch.save(
        {
            kind: {name: value.detach().cpu().clone() for name, value in part.state_dict().items()}
            for kind, part in kinds.items()
        },
        path,
    )


def load_adapters(adapters: Adapters | MVFA, source: str | Path | Mapping) -> None:
    """Take the weights of adapters from a file in the authors' form, or from what it holds.

    Tensors may also be named in one go, `seg_adapters.0.fc1.0.weight`, as in a state dict of the model.
    Raises: ValueError: tensors are missing, or of another shape.
    """
    given = _named(source)
    wanted = {name: value for name, value in adapters.state_dict().items() if name.startswith(_KINDS)}
    if missing := [name for name in wanted if name not in given]:
        raise ValueError(
            f"The checkpoint lacks {missing[0]} and {len(missing) - 1} more of {len(wanted)} tensors; "
            "give one of adapters with as many levels"
        )
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            raise ValueError(
                f"{name} is {_shape(given[name])} in the checkpoint and {_shape(value)} in the model; "
                "build the model on the backbone that the adapters were trained on"
            )
    with torch.no_grad():
        for name, value in adapters.named_parameters():
            if name in wanted:
                value.copy_(given[name])


_KINDS = ("seg_adapters.", "det_adapters.")


def _named(source: str | Path | Mapping) -> dict[str, Tensor]:
    if not isinstance(source, Mapping):
        try:
            source = torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{source} is no checkpoint of adapters: {type(error).__name__}: {reason}") from error
        if not isinstance(source, Mapping):
            raise ValueError(f"The checkpoint holds a {type(source).__name__}, not adapters by name")
    found: dict[str, Tensor] = {}
    for name, value in source.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": tensor for inner, tensor in value.items()}
        else:
            found[name] = value
    return found


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape))
