"""Allocate 1.5 GiB in one process (the harness allows 512 MiB)."""

import json
import time

a = []
try:
    for _ in range(24):
        a.append(bytearray(b"x") * (64 << 20))
        time.sleep(0.01)
except MemoryError:
    pass
n = len(a) * 64
print("ATTACK", json.dumps({"attack": "memory_hog", "breach": n >= 1536, "detail": f"{n} MiB"}), flush=True)
