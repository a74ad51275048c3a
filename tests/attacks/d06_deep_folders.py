"""Hide 300 MiB where no path is short enough to name it (the harness allows 100 MiB)."""

import json
import os
import time

os.chdir(os.environ["M3_OUT"])
for _ in range(60):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
with open("fill", "wb") as file:
    for _ in range(30):
        file.write(b"x" * (10 << 20))
        time.sleep(0.1)
print("ATTACK", json.dumps({"attack": "deep_folders", "breach": True, "detail": "300 MiB written"}), flush=True)
