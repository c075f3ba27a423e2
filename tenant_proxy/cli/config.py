"""tenant-proxy config …"""

from __future__ import annotations

from typing import Annotated

import typer

from tenant_proxy.cli.output import print_json
from tenant_proxy.config.reference import json_schema, policy_schema

config_app = typer.Typer(name="config", help="About the configuration file.", no_args_is_help=True)


@config_app.callback()
def _group() -> None:
    """About the configuration file."""


@config_app.command()
def schema(
    policy: Annotated[bool, typer.Option("--policy", help="That of policy files.")] = False,
) -> None:
    """Prints the file's JSON schema, for editors that check and complete YAML."""
    print_json(policy_schema() if policy else json_schema())
