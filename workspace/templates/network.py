"""Stand-in for the network.py of an emitted folder, so that a template runs as it stands in the source tree."""

import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))


def network(s, *weights):
    """The network that `s.network` names, made for the settings `s`."""
    return importlib.import_module(f"networks.{s.network}").network(s, *weights)
