"""The table of attacks: level x user, safe / breached / skipped, as markdown.

    python benchmarks/attacks.py [FOLDER OF MORE ATTACKS]

Runs tests/test_attacks.py as the current user. "breached" counts what a level is known to leave open, too.
"""

import getpass
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

SUITE = Path(__file__).parent.parent / "tests" / "test_attacks.py"


def main() -> int:
    more = {"M3DSPY_ATTACKS": sys.argv[1]} if len(sys.argv) > 1 else {}
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        words = ["-q", "-m", "", "-k", "an_attack_fails or leaves_or_prints", f"--junitxml={report}", str(SUITE)]
        done = subprocess.run([sys.executable, "-m", "pytest", *words], env={**os.environ, **more}, capture_output=True)
        cases = list(ElementTree.parse(report).iter("testcase"))
    counts: dict[str, Counter[str]] = {}
    names = []
    for case in cases:
        attack, _, level = case.get("name", "").partition("[")[2].rstrip("]").rpartition("-")
        skipped, failed = case.find("skipped"), case.find("failure")
        known = skipped is not None and skipped.get("type") == "pytest.xfail"
        kind = "breached" if known or failed is not None else "skipped" if skipped is not None else "safe"
        counts.setdefault(level, Counter())[kind] += 1
        if kind == "breached":
            names.append(f"{level}: {attack}{' (known)' if known else ''}")
    print("| level | user | safe | breached | skipped |\n|---|---|---|---|---|")
    for level, found in counts.items():
        print(f"| {level} | {getpass.getuser()} | {found['safe']} | {found['breached']} | {found['skipped']} |")
    print("\n".join(["", *names]))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
