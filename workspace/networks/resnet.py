"""ResNet-18 for 2D and 3D classification (33 million weights in 3D); needs thousands of images, or patience.

He et al. 2016, arXiv:1512.03385; in 3D Hara et al. 2018, arXiv:1711.09577. MONAI's, without pretrained weights.
"""

from monai.networks.nets.resnet import resnet18
from torch import nn

TASK = "classification"
DIMS = (2, 3)
SIZE = "strong"


def network(s):
    """Images (B, channels, *size) to logits (B, labels)."""
    net = resnet18(
        spatial_dims=s.dims, n_input_channels=s.channels, conv1_t_size=7 if s.dims == 2 else 5, conv1_t_stride=2
    )
    features = net.fc.in_features  # pyright: ignore[reportOptionalMemberAccess]  there is one unless feed_forward=False
    net.fc = nn.Sequential(nn.Dropout(s.dropout), nn.Linear(features, len(s.labels)))  # pyright: ignore[reportAttributeAccessIssue]
    return net
