"""Talk to services of the host over Unix sockets, by path and by abstract name (a database, the agent's helper)."""

import glob
import json
import os
import socket

done = []
for name in [
    os.environ["ATK_OUTSIDE"] + "/socket",
    "\0m3-attack-" + os.environ["ATK_PORT"],
    *glob.glob("/run/*.sock"),
    "/run/dbus/system_bus_socket",
    "/var/run/docker.sock",
]:
    try:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(name)
            done.append(name)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "unix_sockets", "breach": bool(done), "detail": done}))
