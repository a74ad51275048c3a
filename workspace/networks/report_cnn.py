"""Small convolutional encoder for reports on 2D and 3D images: a few halvings, one token a cell of the coarse grid.

Two 3x3 convolutions a level with batch normalisation, as in VGG: Simonyan and Zisserman 2015, arXiv:1409.1556.
"""

from torch import nn

TASK = "report_generation"
DIMS = (2, 3)
SIZE = "small"


def network(s):
    """Images (B, channels, *size) to feature maps (B, features, *coarse grid)."""
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if s.dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    layers: list[nn.Module] = []
    entering = s.channels
    for level in range(4 if s.dims == 2 else 3):
        leaving = s.width * 2**level
        layers += [conv(entering, leaving, 3, stride=2, padding=1, bias=False), norm(leaving), nn.ReLU()]
        layers += [conv(leaving, leaving, 3, padding=1, bias=False), norm(leaving), nn.ReLU()]
        entering = leaving
    layers.append(nn.Dropout(s.dropout))
    return nn.Sequential(*layers)
