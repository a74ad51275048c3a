"""Connect to a service on the host's loopback (the agent's own API, a vLLM server, a database, Jupyter)."""

import json
import os
import socket

ok = []
for fam, a in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "localhost")):
    try:
        s = socket.create_connection((a, int(os.environ["ATK_PORT"])), 2)
        s.sendall(b"hi")
        ok.append(a)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "loopback", "breach": bool(ok), "detail": ok}))
