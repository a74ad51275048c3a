"""Small convolutional classifier for 2D and 3D images: a few halvings, mean and maximum pooling.

Two 3x3 convolutions a level with batch normalisation, as in VGG: Simonyan and Zisserman 2015, arXiv:1409.1556.
"""

import torch
from torch import nn

TASK = "classification"
DIMS = (2, 3)
SIZE = "small"


def network(s):
    """Images (B, channels, *size) to logits (B, labels)."""
    return SmallCNN(s.dims, s.channels, len(s.labels), s.width * (2 if s.dims == 2 else 1), s.dropout)


class SmallCNN(nn.Module):
    """A new level doubles the channels and halves the grid; 2D images are larger and get a fourth level."""

    def __init__(self, dims: int, channels: int, classes: int, width: int, dropout: float):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        layers, entering = [], channels
        for level in range(4 if dims == 2 else 3):
            leaving = width * 2**level
            layers += [conv(entering, leaving, 3, stride=2, padding=1, bias=False), norm(leaving), nn.ReLU()]
            layers += [conv(leaving, leaving, 3, padding=1, bias=False), norm(leaving), nn.ReLU()]
            entering = leaving
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * entering, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x).flatten(2)
        return self.head(torch.cat([x.mean(2), x.amax(2)], 1))
