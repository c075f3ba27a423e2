"""On which cluster a tenant may be, and under which names there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.config.opaque import opaque_name
from tenant_proxy.config.schema import Cluster, Config
from tenant_proxy.lifecycle.sql import fitting

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Context


#: the label on which a tenant and its cluster must agree
REGION = "region"


def check_region(cluster: Cluster, tenant: str, labels: Mapping[str, str]) -> None:
    """Failure (forbidden) for a tenant whose data must not be there."""
    wanted, found = labels.get(REGION), cluster.labels.get(REGION)
    if wanted is not None and wanted != found:
        where = f"is in {found}" if found else "says of no region where it is"
        raise Failure(
            "forbidden",
            f'tenant "{tenant}" must stay in region {wanted}, cluster "{cluster.name}" {where}',
            hint="the labels of a cluster are in the configuration: clusters[].labels.region",
        )


def copied_labels(
    new: str, labels: Mapping[str, str], given: Mapping[str, str | None] | None
) -> dict[str, str]:
    """Of a copy: what was copied has these, and `given` goes over them, but for the region: data that must
    stay somewhere must stay there under any name.
    """
    made = {**labels, **(given or {})}
    region = labels.get(REGION)
    if region is not None and made[REGION] != region:
        raise Failure(
            "forbidden",
            f'"{new}" is a copy of what must stay in region {region}',
            hint=f"if it need not, take the label from the tenant that is copied first: --unlabel {REGION}",
        )
    return {name: value for name, value in made.items() if value is not None}


async def choose(context: Context, tenant: str, labels: Mapping[str, str], wanted: str | None) -> Cluster:
    """The cluster that was asked for, or of those that fit the one with the fewest tenants."""
    if wanted is not None:
        cluster = context.cluster(wanted)
        check_region(cluster, tenant, labels)
        return cluster
    fitting_ones = [
        cluster
        for cluster in context.config.clusters
        if labels.get(REGION) in (None, cluster.labels.get(REGION))
    ]
    if not fitting_ones:
        raise Failure(
            "forbidden",
            f'no cluster is in region {labels[REGION]}, where "{tenant}" must stay',
            hint="the labels of a cluster are in the configuration: clusters[].labels.region",
        )
    if len(fitting_ones) == 1:
        return fitting_ones[0]
    async with context.store.read() as connection:
        rows = await connection.fetch(
            "SELECT cluster, count(*) AS tenants FROM tenant WHERE state <> 'erased' GROUP BY cluster"
        )
    crowd = {row["cluster"]: row["tenants"] for row in rows}
    return min(fitting_ones, key=lambda cluster: crowd.get(cluster.name, 0))


def names(config: Config, tenant: str, schema: str | None, database: str | None) -> dict[str, str]:
    """Of a tenant's schema and roles, as columns of the catalog."""
    # schemas in databases of their own may all have one name, roles not
    base = schema if schema is not None and database is None else tenant
    if config.opaque_names and config.secret is not None:
        base = opaque_name("schema", tenant, config.secret.reveal())
    return {
        "schema": schema or fitting(base),
        "owner_role": fitting(base, "_owner"),
        "readwrite_role": fitting(base, "_readwrite"),
        "readonly_role": fitting(base, "_readonly"),
    }
