"""nnU-Net's plain U-Net for 2D and 3D segmentation, shaped by the voxel size, with deep supervision.

MONAI's DynUNet after Isensee et al. 2021, doi:10.1038/s41592-020-01008-z. An axis is halved as long as its voxels are
not more than twice the finest ones and 8 voxels or more of the patch remain: thick slices are left alone until the
others have caught up.
"""

import torch
from monai.networks.nets.dynunet import DynUNet

TASK = "segmentation"
DIMS = (2, 3)
SIZE = "strong"


def network(s):
    """Images (B, channels, *size) to logits (B, 1 + labels, *size); in training a list of them, finest first."""
    strides = strides_of(s.size, s.spacing or [1.0] * s.dims)
    kernels = [[3] * s.dims] * len(strides)
    filters = [min(2 * s.width * 2**level, 512 if s.dims == 2 else 320) for level in range(len(strides))]
    return Supervised(
        s.dims, s.channels, 1 + len(s.labels), kernels, strides, strides[1:], filters, norm_name="INSTANCE"
    )


def strides_of(size, spacing) -> list[list[int]]:
    """One stride a level and axis, the first level without.

    >>> strides_of((32, 32, 8), (1.0, 1.0, 4.0))
    [[1, 1, 1], [2, 2, 1], [2, 2, 1]]
    """
    strides, size, spacing = [[1] * len(size)], list(size), list(spacing)
    while len(strides) < 6:
        stride = [
            2 if mm <= 2 * min(spacing) and n % 2 == 0 and n >= 16 else 1 for n, mm in zip(size, spacing, strict=True)
        ]
        if max(stride) == 1:
            break
        strides.append(stride)
        size = [n // k for n, k in zip(size, stride, strict=True)]
        spacing = [mm * k for mm, k in zip(spacing, stride, strict=True)]
    return strides


class Supervised(DynUNet):
    """DynUNet that answers a list in training, as MONAI's DeepSupervisionLoss takes it."""

    def __init__(self, dims, channels, classes, kernels, strides, upsampling, filters, **more):
        heads = min(2, len(strides) - 2)
        super().__init__(
            dims, channels, classes, kernels, strides, upsampling, filters,
            deep_supervision=heads > 0, deep_supr_num=max(1, heads), **more,
        )  # fmt: skip

    def forward(self, x: torch.Tensor):
        answer = super().forward(x)
        return list(answer.unbind(1)) if self.training and self.deep_supervision else answer
