"""`python -m tenant_proxy` is the command tenant-proxy."""

import sys

from tenant_proxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
