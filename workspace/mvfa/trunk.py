"""CLIP's image tower as MVFA runs it: frozen, batch first, without attention weights.

open_clip's own block falls into a slow path where gradients pass through a frozen block; `block` computes the same.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

_LARGE = 1 << 16  # numbers in a weight; smaller ones are not worth oneDNN's overhead


def image_tower(clip: nn.Module) -> Any:
    """The vision transformer of a CLIP.

    Raises: ValueError: the tower is of another kind.
    """
    visual = getattr(clip, "visual", None)
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"The image tower is a {type(visual).__name__}; MVFA needs a vision transformer of open_clip: ViT-B-16, ..."
        )
    return visual


def grid(visual: Any) -> tuple[int, int]:
    """Rows and columns of patches that the tower has positions for; a square where they were put in by hand."""
    patches = len(visual.positional_embedding) - 1
    if math.prod(visual.grid_size) != patches:
        return math.isqrt(patches), math.isqrt(patches)
    return visual.grid_size[0], visual.grid_size[1]


def checked(visual: Any, images: Tensor) -> Tensor:
    """Images, if they are (B, 3, H, W) floats about 0 to 1 of the size that the tower was built for.

    Raises: ValueError: they are not.
    """
    if not images.is_floating_point():
        raise ValueError(
            f"The images are {_kind(images)}; give floats from 0 to 1: divide by the highest value there is"
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"The images are {tuple(images.shape)}; give (images, 3, rows, columns), grey repeated 3 times"
        )
    rows, columns = visual.patch_size
    if (images.shape[2] // rows, images.shape[3] // columns) != (known := grid(visual)):
        raise ValueError(
            f"The images have {images.shape[2]} x {images.shape[3]} pixels; this backbone was built for "
            f"{known[0]} x {known[1]} patches of {rows}: resize them, or build it for their size"
        )
    highest = float(images.detach().abs().amax()) if images.numel() else 0.0
    if not highest < 30:  # a few deviations, where images are normalised
        raise ValueError(f"The images hold values up to {highest:g}; give floats from 0 to 1, without gaps")
    return images


def _kind(images: Tensor) -> str:
    name = str(images.dtype).removeprefix("torch.")
    return {"uint8": "8-bit integers", "uint16": "16-bit integers"}.get(name, f"of type {name}")


def embedded(visual: Any, images: Tensor) -> Tensor:
    """(B, 1 + L, W): class token and patches with their positions, as they enter the first block."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    start = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    return visual.ln_pre(torch.cat([start, patches], 1) + visual.positional_embedding.to(patches.dtype))


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`; frozen weights on a CPU by oneDNN, which uses all of AVX-512 where MKL does so on some makes only."""
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or weight.numel() < _LARGE or weight.requires_grad
    if plain or not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _Frozen.apply(x, weight, bias)


class _Frozen(torch.autograd.Function):
    """`F.linear` by oneDNN, of which nothing is kept for the gradient but the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape = x.shape
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        dense = gradient.contiguous().to_mkldnn()
        return torch.ops.aten.mkldnn_linear_backward_input(ctx.shape, dense, weight).to_dense(), None, None


def block(layer: Any, x: Tensor) -> Tensor:
    """One block of the transformer, (B, 1 + L, W) -> (B, 1 + L, W), equal to `layer(x)`."""
    attention, mlp = layer.attn, layer.mlp
    if not isinstance(attention, nn.MultiheadAttention):
        return layer(x)
    images, tokens, width = x.shape
    mixed = linear(layer.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = mixed.view(images, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(images, tokens, width)
    x = x + layer.ls_1(linear(seen, attention.out_proj.weight, attention.out_proj.bias))
    inner = mlp.gelu(linear(layer.ln_2(x), mlp.c_fc.weight, mlp.c_fc.bias))
    return x + layer.ls_2(linear(inner, mlp.c_proj.weight, mlp.c_proj.bias))


def blocks(visual: Any, x: Tensor, begin: int, end: int) -> Tensor:
    """Blocks `begin` to `end` - 1, counted from 0."""
    for layer in visual.transformer.resblocks[begin:end]:
        x = block(layer, x)
    return x


def pooled(visual: Any, x: Tensor) -> Tensor:
    """(B, E): CLIP's feature of an image, from the tokens after the last block."""
    x, _ = visual._pool(x)
    return x if visual.proj is None else x @ visual.proj
