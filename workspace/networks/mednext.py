"""MedNeXt for 2D and 3D segmentation: ConvNeXt blocks in a U-Net, deep supervision; best where a GPU has hours.

Roy et al. 2023, arXiv:2303.09975: size S, kernels of 3. MONAI's.
"""

import torch
from monai.networks.nets.mednext import MedNeXt

TASK = "segmentation"
DIMS = (2, 3)
SIZE = "strong"
DIVISOR = {2: 16, 3: 16}  # every axis of the patch is halved four times


def network(s):
    """Images (B, channels, *size) to logits (B, 1 + labels, *size); in training a list, each half as fine."""
    return Supervised(
        spatial_dims=s.dims,
        init_filters=2 * s.width,
        in_channels=s.channels,
        out_channels=1 + len(s.labels),
        kernel_size=3,
        deep_supervision=True,
        use_residual_connection=True,
    )


class Supervised(MedNeXt):
    """MedNeXt that answers a list in training, the finest logits alone otherwise."""

    def forward(self, x: torch.Tensor):
        answer = super().forward(x)
        return list(answer) if self.training else answer
