"""Fill the disk where `du` does not look: a deleted file, a folder closed to its owner (the harness allows 100 MiB)."""

import json
import os
import time

os.chdir(os.environ["M3_OUT"])
os.mkdir("closed")
files = [open("gone", "wb", 0), open("closed/fill", "wb", 0)]
os.unlink("gone")
os.chmod("closed", 0)
for _ in range(20):
    for file in files:
        file.write(b"x" * (10 << 20))
    time.sleep(0.15)
print("ATTACK", json.dumps({"attack": "hidden_disk", "breach": True, "detail": "400 MiB written"}), flush=True)
