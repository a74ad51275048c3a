"""A 3D ResNet with the weights of MedicalNet, learnt from 23 segmentation sets of CT and MR; only with such weights.

Chen, Ma and Zheng 2019, Med3D, arXiv:1904.00625. MONAI's network.
"""

from functools import partial

import torch
from monai.networks.nets import resnet
from torch import nn

TASK = "classification"
DIMS = (3,)
SIZE = "strong"
WEIGHTS = "medicalnet"  # whose pretrained weights it starts from


def network(s, weights=None):
    """Images (B, channels, *size) to logits (B, labels). Args: weights: a file of `s.backbone`'s; None: random.

    Raises: ValueError: the file is not of this network.
    """
    depth = int((s.backbone or "medicalnet_resnet18").removeprefix("medicalnet_resnet"))
    bias, shortcut = resnet.get_medicalnet_pretrained_resnet_args(depth)
    form = {"spatial_dims": 3, "n_input_channels": s.channels, "conv1_t_stride": 2}
    net = getattr(resnet, f"resnet{depth}")(**form, shortcut_type=shortcut, bias_downsample=bias)
    for block in net.modules():
        if isinstance(getattr(block, "downsample", None), partial):
            block.downsample = Shortcut(**block.downsample.keywords)
    net.fc = nn.Sequential(nn.Dropout(s.dropout), nn.Linear(net.fc.in_features, len(s.labels)))
    if weights is not None:
        _fill(net, weights, s.channels)
    return net


class Shortcut(nn.Module):
    """MONAI's shortcut without weights; gradients go through it, and an exported graph takes any number of images."""

    def __init__(self, planes, stride, spatial_dims):
        super().__init__()
        self.planes, self.stride = planes, stride

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 0, self.planes - x.shape[1]))


def _fill(net, weights, channels):
    try:
        held = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"this is no checkpoint that can be read safely ({type(error).__name__})") from error
    held = held.get("state_dict", held) if isinstance(held, dict) else {}
    given = {name.removeprefix("module."): tensor for name, tensor in held.items()}
    if "conv1.weight" in given:  # of one channel
        given["conv1.weight"] = given["conv1.weight"].expand(-1, channels, -1, -1, -1) / channels
    wanted = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("fc.")}
    wrong = sorted(name for name, tensor in wanted.items() if name not in given or given[name].shape != tensor.shape)
    if wrong:
        raise ValueError(f"The weights lack {wrong[0]} and {len(wrong) - 1} more of {len(wanted)} tensors")
    net.load_state_dict({name: given[name] for name in wanted}, strict=False)
