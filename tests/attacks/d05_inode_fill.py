"""Make 20 000 empty files (the harness allows 2 000)."""

import json
import os
import time

number = 0
for folder in range(20):
    os.mkdir(f"{os.environ['M3_OUT']}/d{folder}")
    for name in range(1000):
        open(f"{os.environ['M3_OUT']}/d{folder}/{name}", "w").close()
        number += 1
    time.sleep(0.2)
print("ATTACK", json.dumps({"attack": "inode_fill", "breach": number >= 20000, "detail": number}), flush=True)
