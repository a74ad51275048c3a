"""A linear probe: which images are abnormal, by the spread and the extremes of a frozen CLIP's tokens over the patches.

Few images have no say on a map, but do on a direction. Radford et al. 2021, arXiv:2103.00020, section 3.2, with ridge
regression in place of logistic regression: it has a closed form. Means over the patches are left out, for they tell how
an image was exposed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .tokens import stacked

RIDGE = 0.1  # of the mean squared length of an image's features


class Probe:
    """A score for images, linear in their features. Args: weight: (F,).  bias: (1,)."""

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias

    @classmethod
    def fitted(cls, features: Tensor, labels: Tensor) -> "Probe":
        """From images to learn from. Args: features: (N, F).  labels: (N,), 1 is abnormal."""
        x = features.double()
        mean, deviation = x.mean(0), x.std(0, correction=0) + 1e-6
        x = (x - mean) / deviation
        alike = x @ x.T / x.shape[1]
        known = torch.where(labels.bool(), 1.0, -1.0).to(alike)
        dual = torch.linalg.solve(alike + RIDGE * torch.eye(len(x)).to(alike), known)
        weight = x.T @ dual / x.shape[1] / deviation
        return cls(weight.to(features), -(mean @ weight).to(features)[None])

    def __call__(self, features: Tensor) -> Tensor:
        """(B,): the higher, the more abnormal."""
        return features @ self.weight + self.bias


def features(tokens: Sequence[Tensor] | Tensor) -> Tensor:
    """(B, levels * 2 * E): deviation and maximum of the patches' tokens, level by level."""
    patches = stacked(tokens)[:, :, 1:]
    return torch.cat([patches.std(2, correction=0), patches.amax(2)], -1).transpose(0, 1).flatten(1)
