"""Compiles the Cython modules; everything else is in pyproject.toml.

TP_DEBUG=1 turns bounds checks, line tracing and assertions on.  TP_NO_EXTENSIONS=1
leaves them out: the Makefile installs the package first and compiles on its own.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("TP_DEBUG") == "1"

DIRECTIVES = {
    "language_level": "3",
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "linetrace": DEBUG,
}


def extension(path: Path) -> Extension:
    return Extension(
        str(path.with_suffix("")).replace(os.sep, "."),
        [str(path)],
        extra_compile_args=["-O0", "-g"] if DEBUG else ["-O3", "-g1", "-fno-plt", "-fwrapv"],
        define_macros=[("TP_DEBUG", "1" if DEBUG else "0")] + ([("CYTHON_TRACE", "1")] if DEBUG else []),
    )


sources = [] if os.environ.get("TP_NO_EXTENSIONS") == "1" else sorted(Path("tenant_proxy").rglob("*.pyx"))
setup(
    ext_modules=cythonize([extension(path) for path in sources], compiler_directives=DIRECTIVES, quiet=True)
)
