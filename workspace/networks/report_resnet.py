"""ResNet-18 as the encoder for reports on 2D and 3D images (33 million weights in 3D); needs thousands, or patience.

He et al. 2016, arXiv:1512.03385; in 3D Hara et al. 2018, arXiv:1711.09577. MONAI's, without pretrained weights.
"""

from monai.networks.nets.resnet import resnet18
from torch import nn

TASK = "report_generation"
DIMS = (2, 3)
SIZE = "strong"


def network(s):
    """Images (B, channels, *size) to feature maps (B, 512, *coarse grid)."""
    net = resnet18(
        spatial_dims=s.dims, n_input_channels=s.channels, conv1_t_size=7 if s.dims == 2 else 5, conv1_t_stride=2
    )
    stem = (net.conv1, net.bn1, net.act, net.maxpool)
    return nn.Sequential(*stem, net.layer1, net.layer2, net.layer3, net.layer4, nn.Dropout(s.dropout))
