"""Find an API key: own environment, every readable /proc/*/environ."""

import glob
import json

hits = []
for p in glob.glob("/proc/[0-9]*/environ") + ["/proc/self/environ"]:
    try:
        if b"M3SECRET" in open(p, "rb").read():
            hits.append(p)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "env_secret", "breach": bool(hits), "detail": hits[:3]}))
