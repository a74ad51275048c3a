"""Make nodes of disks and of the kernel's memory, and open those that are there."""

import glob
import json
import os
import stat

done = []
for number, name in ((os.makedev(1, 1), "mem"), (os.makedev(8, 0), "sda"), (os.makedev(254, 0), "vda")):
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        try:
            path = f"{os.environ['M3_OUT']}/{name}{kind}"
            os.mknod(path, kind | 0o600, number)
            done.append(path)
        except OSError:
            pass
for path in [
    *glob.glob("/dev/[svx]d[a-z]*"),
    *glob.glob("/dev/loop*"),
    *glob.glob("/dev/nvme*"),
    "/dev/mem",
    "/dev/port",
]:
    try:
        os.close(os.open(path, os.O_RDONLY))
        done.append(path)
    except OSError:
        pass
print("ATTACK", json.dumps({"attack": "device_nodes", "breach": bool(done), "detail": done[:5]}))
