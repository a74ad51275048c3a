"""Small U-Net for 2D and 3D segmentation: four levels in 3D, five in 2D, one residual unit each.

MONAI's UNet, after Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40 (the original: Ronneberger et al. 2015).
"""

from monai.networks.nets.unet import UNet

TASK = "segmentation"
DIMS = (2, 3)
SIZE = "small"
DIVISOR = {2: 16, 3: 8}  # every axis of the patch is halved four times in 2D, three times in 3D


def network(s):
    """Images (B, channels, *size) to logits (B, 1 + labels, *size); channel 0 is the background."""
    levels = 5 if s.dims == 2 else 4
    return UNet(
        spatial_dims=s.dims,
        in_channels=s.channels,
        out_channels=1 + len(s.labels),
        channels=[s.width * 2**level for level in range(levels)],
        strides=[2] * (levels - 1),
        num_res_units=1,
        norm="INSTANCE",
    )
