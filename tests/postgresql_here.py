"""A real PostgreSQL on loopback, where its binaries are installed."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from tempfile import mkdtemp

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [*filter(None, [shutil.which("initdb")])]
NOBODY = 65534


class PostgreSQL:
    """A server of its own on loopback; the user m3 has the password `open sesame`."""

    def __init__(self):
        self.bin = Path(BINARIES[-1]).parent
        self.folder = Path(mkdtemp(prefix="m3dspy-postgresql-"))
        self.data = self.folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://m3:open%20sesame@127.0.0.1:{self.port}/postgres"
        (self.folder / "password").write_text("open sesame")
        if os.geteuid() == 0:  # which the server refuses to run as
            for path in (self.folder, self.folder / "password"):
                os.chown(path, NOBODY, NOBODY)
        self.act("initdb", "-U", "m3", "-A", "scram-sha-256", f"--pwfile={self.folder}/password", "--no-locale", "-N")
        self.start()

    def act(self, name, *words):
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = [*(as_nobody if os.geteuid() == 0 else []), self.bin / name, "-D", self.data, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=60)

    def start(self):
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        self.act("pg_ctl", "start", "-w", "-o", options, "-l", f"{self.folder}/log")

    def stop(self):
        self.act("pg_ctl", "stop", "-w", "-m", "immediate")

    def end(self):
        self.stop()
        shutil.rmtree(self.folder)
