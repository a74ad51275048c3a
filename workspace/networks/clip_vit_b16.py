"""CLIP ViT-B/16, whose tokens MVFA's adapters read (its 86 million weights stay as they are); for a CPU, a first try.

Radford et al. 2021, arXiv:2103.00020.
"""

TASK = "anomaly_detection"
DIMS = (2,)
SIZE = "small"
OPEN_CLIP = "ViT-B-16-quickgelu"  # its name in open_clip, with the activation that OpenAI's weights were trained with
WIDTH, PATCH = 768, 16


def network(s, weights=None):
    """The CLIP for images of `s.size`; random, but the same everywhere, without `weights`."""
    from mvfa import clip_model

    return clip_model(OPEN_CLIP, s.size, weights, s.activation)
