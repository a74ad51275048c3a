"""Fail, say nothing of it, and end with status 0."""

import json
import os
import sys

print(
    "ATTACK",
    json.dumps({"attack": "hide_failure", "breach": None, "detail": "breach if the run counts as a success"}),
    flush=True,
)
sys.stderr = open(os.devnull, "w")
try:
    raise RuntimeError("no GPU")
finally:
    os._exit(0)
