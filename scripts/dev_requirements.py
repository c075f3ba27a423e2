"""Prints what development needs: pyproject's dependencies and its extras, one a line."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["demo"], *extras["dev"]]:
    if not requirement.startswith("tenant-proxy["):
        print(requirement)
