"""Prints requirements of pyproject.toml, one a line: `run` for the demo and compiling, `dev` for all."""

import sys
import tomllib
from pathlib import Path

pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
project = pyproject["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *extras["demo"], *pyproject["build-system"]["requires"]]
if sys.argv[1:] == ["dev"]:
    wanted += extras["dev"]
for requirement in wanted:
    if not requirement.startswith("tenant-proxy["):
        print(requirement)
