"""Write 400 MiB in 20 MiB files (the harness allows 100 MiB); also /tmp."""

import json
import os
import time

n = 0
for d in (os.environ["M3_OUT"], os.environ.get("M3_TMP", "/tmp")):
    for i in range(10):
        try:
            with open(f"{d}/fill{i}", "wb") as f:
                f.write(b"x" * (20 << 20))
                n += 20
        except OSError:
            pass
        time.sleep(0.2)
print("ATTACK", json.dumps({"attack": "disk_fill", "breach": n >= 400, "detail": f"{n} MiB"}), flush=True)
