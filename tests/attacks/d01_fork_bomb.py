"""Bounded fork bomb: at most 300 sleeping children (the harness allows 64)."""

import json
import os
import time

n = 0
for _ in range(300):
    try:
        p = os.fork()
    except OSError:
        break
    if p == 0:
        time.sleep(20)
        os._exit(0)
    n += 1
    if n % 50 == 0:
        time.sleep(0.05)
print("ATTACK", json.dumps({"attack": "fork_bomb", "breach": n >= 300, "detail": n}), flush=True)
time.sleep(3)
