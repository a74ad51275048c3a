"""Is there a way out?  Interfaces other than lo; a route for 192.0.2.1 (UDP connect() only asks the routing table, no packet)."""

import json
import socket

d = [n for _, n in socket.if_nameindex() if n != "lo"]
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(("192.0.2.1", 9))
    d.append("route")
except OSError:
    pass
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    d.append("raw packets")
except OSError:
    pass
print("ATTACK", json.dumps({"attack": "network_route", "breach": "route" in d or "raw packets" in d, "detail": d}))
