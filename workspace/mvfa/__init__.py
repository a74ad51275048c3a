"""MVFA: anomaly detection in medical images by adapters on a frozen CLIP. Huang et al., CVPR 2024, arXiv:2403.12570.

    clip = clip_model("ViT-L-14-336-quickgelu", 240, "openai")
    model = MVFA(clip)
    text = text_features(clip, "liver CT")
    losses(model(images), text, masks, labels, 240)["pixel"].backward()

Defaults of the functions are the paper's. Images are (B, 3, H, W) floats from 0 to 1; a label of 1 is abnormal.
"""

from .backbone import clip_model, fingerprint
from .baselines import bank_scores, clip_scores
from .detector import Batch, Detector, Scores, Scoring, Threshold, judged, squashed
from .features import FeatureCache
from .losses import losses
from .model import MVFA, Adapters, MVFAOutput, load_adapters, save_adapters
from .reading import Known, Reader
from .scoring import MemoryBank, Scale, anomaly_map, auroc, fuse, min_max, patch_probability, upsampled
from .text import MEDICAL_STATES, PAPER_STATES, TEMPLATES, States, text_features
from .tokens import Tokens
from .views import augment

__all__ = [
    "MEDICAL_STATES",
    "MVFA",
    "PAPER_STATES",
    "TEMPLATES",
    "Adapters",
    "Batch",
    "Detector",
    "FeatureCache",
    "Known",
    "MVFAOutput",
    "MemoryBank",
    "Reader",
    "Scale",
    "Scores",
    "Scoring",
    "States",
    "Threshold",
    "Tokens",
    "anomaly_map",
    "augment",
    "auroc",
    "bank_scores",
    "clip_model",
    "clip_scores",
    "fingerprint",
    "fuse",
    "judged",
    "load_adapters",
    "losses",
    "min_max",
    "patch_probability",
    "save_adapters",
    "squashed",
    "text_features",
    "upsampled",
]
