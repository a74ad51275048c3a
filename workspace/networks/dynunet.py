"""nnU-Net's plain U-Net for 2D and 3D segmentation, shaped by the voxel size, with deep supervision.

MONAI's DynUNet after Isensee et al. 2021, doi:10.1038/s41592-020-01008-z. An axis is halved while 8 voxels or more of
the patch are left and its voxels are less than twice as long as the shortest: thick slices are left alone, by
convolutions too, until the others have caught up. `slicewise` makes it a 2D network: nothing is seen along the axis
with the fewest voxels. `residual` gives each level of the encoder a skip, as nnU-Net's ResEnc does (Isensee et al.
2024, arXiv:2404.09556).
"""

import torch
from monai.networks.nets.dynunet import DynUNet

TASK = "segmentation"
DIMS = (2, 3)
SIZE = "strong"
OPTIONS = ("residual", "slicewise")  # settings that no other network obeys


def network(s):
    """Images (B, channels, *size) to logits (B, 1 + labels, *size); in training a list of them, finest first."""
    mm = s.spacing or [1.0] * s.dims
    across = min(range(s.dims), key=lambda axis: (s.size[axis], -axis)) if s.slicewise and s.dims == 3 else None
    seen = [axis for axis in range(s.dims) if axis != across]
    strides, kernels = levels([s.size[axis] for axis in seen], [mm[axis] for axis in seen])
    if across is not None:
        for level in (*strides, *kernels):
            level.insert(across, 1)
    filters = [min(2 * s.width * 2**level, 512 if s.dims == 2 else 320) for level in range(len(strides))]
    return Supervised(
        s.dims, s.channels, 1 + len(s.labels), kernels, strides, strides[1:], filters,
        norm_name="INSTANCE", res_block=s.residual,
    )  # fmt: skip


def levels(size, spacing) -> tuple[list[list[int]], list[list[int]]]:
    """Strides and convolution kernels, one a level and axis; the first level has no stride. Only even axes are halved.

    >>> strides, kernels = levels((64, 64, 16), (1.0, 1.0, 5.0))
    >>> strides
    [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]
    >>> kernels
    [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    """
    strides, kernels, kernel, size, mm = [[1] * len(size)], [], [1] * len(size), list(size), list(spacing)
    axes = range(len(size))
    while True:
        able = [axis for axis in axes if size[axis] >= 8 and size[axis] % 2 == 0]
        able = [axis for axis in able if mm[axis] < 2 * min(mm[other] for other in able)]
        if not able or (len(able) == 1 and size[able[0]] < 12):
            break
        kernel = [3 if kernel[axis] == 3 or mm[axis] < 2 * min(mm) else 1 for axis in axes]
        kernels.append(kernel)
        strides.append([2 if axis in able else 1 for axis in axes])
        for axis in able:
            mm[axis], size[axis] = mm[axis] * 2, size[axis] // 2
    return strides, [*kernels, [3] * len(size)]


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
