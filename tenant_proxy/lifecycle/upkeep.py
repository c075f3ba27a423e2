"""What has to be done when its time has come: by the control process now and then, or by `job upkeep`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.lifecycle import jobs, webhooks
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.granting import AccessVerbs

if TYPE_CHECKING:
    from datetime import datetime

#: what was asked of the API is forgotten after this
_IDEMPOTENCY_S: Final = 86400.0

_EXPIRED: Final = """
SELECT t.name AS tenant, l.name AS login FROM access a
  JOIN tenant t ON t.id = a.tenant JOIN login l ON l.id = a.login
 WHERE a.expires_at <= now() AND t.state <> 'erased' AND NOT a.pending
"""

_RETIRED: Final = """
SELECT l.name FROM login_secret s JOIN login l ON l.id = s.login WHERE s.retires_at <= now()
"""

_NEXT: Final = """
SELECT least((SELECT min(expires_at) FROM access), (SELECT min(retires_at) FROM login_secret),
             (SELECT min(erase_after) FROM tenant WHERE state = 'deleting'),
             (SELECT min(lease_until) FROM job WHERE state IN ('running', 'undoing')),
             (SELECT min(next_at) FROM webhook_delivery WHERE state = 'waiting'))
"""

#: … and not tried in vain within the hour
_DUE: Final = """
SELECT name FROM tenant t WHERE state = 'deleting' AND erase_after <= now() AND NOT EXISTS (
    SELECT FROM job j WHERE j.tenant = t.id AND j.kind = 'erase' AND j.state IN ('failed', 'undone')
       AND j.updated_at > now() - interval '1 hour')
"""


async def upkeep(context: Context) -> list[str]:
    """Goes on with jobs that were left behind, takes away what has expired; what was done, for the log.

    Two who do it at once do no harm: each job is one's alone.
    """
    done: list[str] = []
    verbs = AccessVerbs(context)
    for job in await jobs.abandoned(context):
        with suppress(Failure):  # the row says why
            await jobs.run(context, job.id)
            done.append(f"job {job.id} ({job.kind}) was gone on with")
    async with context.store.read() as connection:
        expired = await connection.fetch(_EXPIRED)
        retired = await connection.fetch(_RETIRED)
        due = await connection.fetch(_DUE) if "erase" in jobs.KINDS else []
        await connection.execute(
            "DELETE FROM idempotency WHERE created_at < now() - make_interval(secs => $1)", _IDEMPOTENCY_S
        )
    for row in expired:
        with suppress(Failure):
            await verbs.access_revoke(row["tenant"], row["login"], wait_s=0)
            done.append(f"access of {row['login']} on {row['tenant']} expired")
    for row in retired:
        with suppress(Failure):
            await verbs.access_rotate(row["name"], end=True)
            done.append(f"the former password of {row['name']} was retired")
    for row in due:
        with suppress(Failure):
            tenant = await context.store.tenant(row["name"])
            job = await jobs.start(context, "erase", tenant)
            await jobs.run(context, job)
            done.append(f"tenant {row['name']} was erased")
    done += await webhooks.deliver(context)
    return done


async def next_time(context: Context) -> datetime | None:
    """When something will be due; None: nothing that is known of now."""
    async with context.store.read() as connection:
        found: datetime | None = await connection.fetchval(_NEXT)
    return found
