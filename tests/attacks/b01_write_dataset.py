"""Change the dataset: write, truncate, delete, create, rename, chmod, mkdir, utime, xattr."""

import json
import os

d = os.environ["M3_DATA"]
f = d + "/train.csv"
done = []


def t(n, g):
    try:
        g()
        done.append(n)
    except OSError:
        pass


t("append", lambda: open(f, "a").write("x,1\n"))
t("truncate", lambda: os.truncate(f, 3))
t("create", lambda: open(d + "/new", "w").close())
t("rename", lambda: os.rename(f, d + "/moved.csv"))
t("chmod", lambda: os.chmod(d, 0o777))
t("utime", lambda: os.utime(f))
t("mkdir", lambda: os.mkdir(d + "/sub"))
t("symlink", lambda: os.symlink("/etc/passwd", d + "/link"))
t("xattr", lambda: os.setxattr(f, "user.m3", b"1"))
t("unlink", lambda: os.unlink(d + "/img0.bin"))
print("ATTACK", json.dumps({"attack": "write_dataset", "breach": bool(done), "detail": done}))
