"""SegResNet for 2D and 3D segmentation: residual encoder, light decoder, deep supervision; the network of Auto3DSeg.

Myronenko 2018, arXiv:1810.11654. MONAI's SegResNetDS with instance normalisation: thick slices are left alone until
the other axes have caught up.
"""

from monai.networks.nets.segresnet_ds import SegResNetDS

TASK = "segmentation"
DIMS = (2, 3)
SIZE = "strong"
DIVISOR = {2: 16, 3: 16}  # every axis of the patch is halved four times at most


def network(s):
    """Images (B, channels, *size) to logits (B, 1 + labels, *size); in training a list, each half as fine."""
    return SegResNetDS(
        spatial_dims=s.dims,
        init_filters=s.width,
        in_channels=s.channels,
        out_channels=1 + len(s.labels),
        norm="INSTANCE",
        blocks_down=(1, 2, 2, 4, 4),
        dsdepth=3,
        resolution=s.spacing,
    )
