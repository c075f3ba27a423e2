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
block = f"\\1\n```console\n$ make demo ONCE=1\n{done.stdout.strip()}\n```\n\\2".replace("\\e", "\\\\e")
text = README.read_text()
README.write_text(re.sub(r"(<!-- tour: .*? -->)\n.*?(<!-- /tour -->)", block, text, flags=re.DOTALL))
