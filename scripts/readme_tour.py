"""Runs the demo and puts what it printed into README.md, between the tour's marks."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"

done = subprocess.run(
    [sys.executable, "-m", "tenant_proxy.devel.demo", "--once"],
    cwd=README.parent,
    capture_output=True,
    text=True,
    check=False,
)
if done.returncode != 0:
    sys.exit(done.stdout + done.stderr)
tour = f"```console\n$ make demo ONCE=1\n{done.stdout.strip()}\n```"
text = README.read_text()
README.write_text(
    re.sub(
        r"(<!-- tour: .*? -->)\n.*?(<!-- /tour -->)",
        lambda marks: f"{marks[1]}\n{tour}\n{marks[2]}",
        text,
        flags=re.DOTALL,
    )
)
