"""Share 1.2 GiB among 12 processes, each far below the limit of the whole (the harness allows 512 MiB)."""

import json
import os
import time

for _ in range(12):
    if os.fork() == 0:
        held = bytearray(b"x") * (100 << 20)
        time.sleep(15)
        os._exit(0)
time.sleep(4)
print("ATTACK", json.dumps({"attack": "many_hogs", "breach": True, "detail": "still here"}), flush=True)
