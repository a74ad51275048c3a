"""CLIP ViT-L/14 at 336 pixels, the backbone of the paper MVFA (its 304 million weights stay as they are); wants a GPU.

Radford et al. 2021, arXiv:2103.00020; in MVFA Huang et al. 2024, arXiv:2403.12570.
"""

TASK = "anomaly_detection"
DIMS = (2,)
SIZE = "strong"
OPEN_CLIP = (
    "ViT-L-14-336-quickgelu"  # its name in open_clip, with the activation that OpenAI's weights were trained with
)
WIDTH, PATCH = 1024, 14


def network(s, weights=None):
    """The CLIP for images of `s.size`; random, but the same everywhere, without `weights`."""
    from mvfa import clip_model

    return clip_model(OPEN_CLIP, s.size, weights, s.activation)
