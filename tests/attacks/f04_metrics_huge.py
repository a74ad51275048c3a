"""Metrics of 80 MiB (the harness allows 100 MiB of disk), and some that are one endless number."""

import json
import os

os.chdir(os.environ["M3_OUT"])
with open("metrics.json", "w") as file:
    file.write('{"acc": 0.9, "note": "' + "A" * (80 << 20) + '"}')
with open("metrics_number.json", "w") as file:
    file.write('{"acc": 0.' + "9" * (1 << 20) + "}")
print("ATTACK", json.dumps({"attack": "metrics_huge", "breach": None, "detail": "breach if the host reads it all"}))
