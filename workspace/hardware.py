"""The GPUs of this machine."""

from m3dspy.signatures.values import Machine


def gpus() -> list[Machine]:
    """Every GPU that PyTorch can train on here."""
    import torch

    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [Machine(gpu=each.name, gigabytes=round(each.total_memory / 1e9, 1)) for each in found]


def machine() -> Machine:
    """What a training can count on here: the smallest GPU, else the CPU."""
    return min(gpus(), key=lambda found: found.gigabytes, default=Machine())
