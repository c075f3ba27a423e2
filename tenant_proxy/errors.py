"""The one catalogue of errors that a client can see.

Every refusal is a PostgreSQL ErrorResponse: severity, SQLSTATE, message, and a
detail (the fact) and hint (what to do) where there is something to say.
Messages are lower case without a full stop, names in double quotes, as in
PostgreSQL's own style guide (docs, "Error Message Style Guide").  SQLSTATEs are
those of PostgreSQL's errcodes.txt.  No constructor takes a secret.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping


class Source(enum.Enum):
    """Whose fault an error is; a label of the error metrics."""

    CLIENT = "client"
    SERVER = "server"
    PROXY = "proxy"


class ProxyError(Exception):
    """An error to be told to a client as an ErrorResponse.

    `position` is a 1-based character index into the statement, as in the
    protocol's P field (docs 54.8, Error and Notice Message Fields).
    """

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        position: int | None = None,
        severity: str = "ERROR",
        source: Source = Source.CLIENT,
        reason: str = "",
        schema: str | None = None,
        routine: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.position = position
        self.severity = severity
        self.source = source
        #: short stable word for metrics and logs, e.g. "cross_schema"
        self.reason = reason or sqlstate
        self.schema = schema
        #: of the server, which would have said so: drivers go by that of some errors
        self.routine = routine

    @property
    def fatal(self) -> bool:
        return self.severity in ("FATAL", "PANIC")

    def to_message(self) -> bytes:
        """The complete ErrorResponse ('E') message, length included."""
        return compose_error(self)


class ClientProtocolError(Exception):
    """The client broke the wire protocol; its connection ends with 08P01."""


class ServerProtocolError(Exception):
    """The server broke the wire protocol; the backend is closed."""


def compose_error(error: ProxyError) -> bytes:
    """An 'E' message (docs 54.7 ErrorResponse, 54.8 fields)."""
    fields = [("S", error.severity), ("V", error.severity), ("C", error.sqlstate), ("M", error.message)]
    if error.detail:
        fields.append(("D", error.detail))
    if error.hint:
        fields.append(("H", error.hint))
    if error.position:
        fields.append(("P", str(error.position)))
    if error.schema:
        fields.append(("s", error.schema))
    if error.routine:
        fields += [("F", "tenant_proxy"), ("L", "1"), ("R", error.routine)]
    parts = [k.encode() + v.replace("\0", "?").encode("utf-8", "replace") + b"\0" for k, v in fields]
    body = b"".join(parts) + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body


# --- wire violations -------------------------------------------------------


def malformed_values(what: str) -> ProxyError:
    """Of a Bind whose values are judged; PostgreSQL goes on after one as well."""
    return ProxyError("08P01", what, reason="protocol_violation")


def protocol_violation(what: str, detail: str | None = None) -> ProxyError:
    return ProxyError("08P01", what, detail=detail, severity="FATAL", reason="protocol_violation")


# --- login -----------------------------------------------------------------


def authentication_failed(user: str, method: str = "password") -> ProxyError:
    """One text for a wrong password and an unknown user, so that names can't be probed."""
    return ProxyError(
        "28P01", f'{method} authentication failed for user "{user}"', severity="FATAL", reason="auth_failed"
    )


def empty_password() -> ProxyError:
    return ProxyError("28P01", "empty password returned by client", severity="FATAL", reason="auth_failed")


def certificate_required() -> ProxyError:
    return ProxyError(
        "28000",
        "connection requires a valid client certificate",
        hint="Connect with the sslcert and sslkey of a certificate that listen.tls.client_ca has signed.",
        severity="FATAL",
        reason="cert_required",
    )


def certificate_failed(user: str) -> ProxyError:
    return ProxyError(
        "28000",
        f'certificate authentication failed for user "{user}"',
        hint="The certificate's common name must be the name of the user.",
        severity="FATAL",
        reason="auth_failed",
    )


def channel_binding_failed() -> ProxyError:
    return ProxyError(
        "28000",
        "SCRAM channel binding check failed",
        detail="The client saw another TLS certificate than the proxy's.",
        severity="FATAL",
        reason="channel_binding",
    )


def channel_binding_downgrade() -> ProxyError:
    return ProxyError(
        "28000",
        "SCRAM channel binding negotiation error",
        detail="The client supports SCRAM channel binding but thinks the server does not.  "
        "However, this proxy does support channel binding.",
        severity="FATAL",
        reason="channel_binding",
    )


def scram_unsupported(what: str) -> ProxyError:
    return ProxyError("0A000", what, severity="FATAL", reason="scram_unsupported")


def server_login_failed(detail: str) -> ProxyError:
    """The proxy could not, or would not, log in to a server; `detail` is for the operator as well."""
    return ProxyError(
        "08006",
        "the proxy could not log in to the database server",
        detail=detail,
        hint="An operator can check the login's server_user and server_password, "
        "and the server's pg_hba.conf.",
        severity="FATAL",
        source=Source.SERVER,
        reason="server_login_failed",
    )


def no_auth_rule(user: str, database: str, address: str, tls: bool) -> ProxyError:
    return ProxyError(
        "28000",
        f'no authentication rule for host "{address}", user "{user}", database "{database}", '
        + ("SSL encryption" if tls else "no encryption"),
        hint="An operator can add a matching entry to auth.rules in the proxy's configuration.",
        severity="FATAL",
        reason="no_auth_rule",
    )


def auth_rejected(user: str, database: str, address: str) -> ProxyError:
    return ProxyError(
        "28000",
        f'an authentication rule rejects connection for host "{address}", user "{user}", '
        f'database "{database}"',
        severity="FATAL",
        reason="auth_rejected",
    )


def no_user_name() -> ProxyError:
    return ProxyError(
        "28000", "no PostgreSQL user name specified in startup packet", severity="FATAL", reason="no_user"
    )


def no_tenant(rule: str, detail: str) -> ProxyError:
    return ProxyError(
        "28000",
        "no tenant for this connection",
        detail=f"{rule}: {detail}",
        hint="Connect with a login that belongs to a tenant, or name the tenant as user.tenant, "
        "as the database, or with options=-c tenant=NAME, as the operator has configured.",
        severity="FATAL",
        reason="no_tenant",
    )


def no_such_tenant(name: str, rule: str) -> ProxyError:
    return ProxyError(
        "3D000",
        f'tenant "{name}" does not exist',
        detail=f"The name came from the mapping rule {rule}.",
        hint="Check the tenant's name in the connection string.",
        severity="FATAL",
        reason="no_such_tenant",
    )


def tenant_suspended(name: str, reason: str) -> ProxyError:
    """Told only to those who have proved who they are."""
    return ProxyError(
        "57P03",
        f'tenant "{name}" is suspended',
        detail=f"The reason given: {reason}",
        hint="Ask whoever operates the platform to resume it.",
        severity="FATAL",
        reason="tenant_suspended",
    )


def suspended(name: str, reason: str) -> ProxyError:
    """To those who were there when it was, after their time of grace."""
    return ProxyError(
        "57P01",
        f'terminating connection because tenant "{name}" is suspended',
        detail=f"The reason given: {reason}",
        hint="Ask whoever operates the platform to resume it.",
        severity="FATAL",
        reason="tenant_suspended",
    )


def login_expired(user: str) -> ProxyError:
    """As PostgreSQL's VALID UNTIL, but told to those who know the password."""
    return ProxyError(
        "28000",
        f'login "{user}" has expired',
        hint="Ask whoever gave it to you for a new one, or for more time.",
        severity="FATAL",
        reason="login_expired",
    )


def login_ended(user: str, why: str) -> ProxyError:
    """To its clients: the right that they came in by is no more."""
    return ProxyError(
        "57P01",
        f'terminating connection because login "{user}" {why}',
        hint="Connect again, with a login that may.",
        severity="FATAL",
        reason="login_ended",
    )


def admin_refused(user: str, database: str) -> ProxyError:
    return ProxyError(
        "42501",
        f'permission denied for database "{database}"',
        detail=f'This is the admin console of the proxy, and login "{user}" is neither admin nor stats.',
        hint="Connect to another database; any other name leads to the login's tenant.",
        severity="FATAL",
        reason="admin_refused",
    )


def login_timeout() -> ProxyError:
    return ProxyError(
        "08006",
        "login timed out",
        hint="Authentication must finish within the proxy's timeouts.login_s.",
        severity="FATAL",
        reason="login_timeout",
    )


def too_many_connections(what: str, limit: int) -> ProxyError:
    return ProxyError(
        "53300",
        "sorry, too many clients already",
        detail=f"{what}: {limit}.",
        hint="Close idle connections, or ask the operator to raise the limit.",
        severity="FATAL",
        reason="too_many_clients",
    )


def tls_required() -> ProxyError:
    return ProxyError(
        "28000",
        "this proxy takes only TLS connections",
        hint="Add sslmode=require (or verify-full) to the connection string.",
        severity="FATAL",
        reason="tls_required",
    )


# --- not now ---------------------------------------------------------------


def shutting_down() -> ProxyError:
    return ProxyError(
        "57P01", "terminating connection due to administrator command", severity="FATAL", reason="shutdown"
    )


def draining() -> ProxyError:
    return ProxyError(
        "57P03",
        "the proxy is shutting down",
        hint="Connect again: another instance or the restarted one will answer.",
        severity="FATAL",
        reason="draining",
    )


def server_unavailable(cluster: str, detail: str) -> ProxyError:
    return ProxyError(
        "08006",
        f'could not connect to the database server of cluster "{cluster}"',
        detail=detail,
        hint="The proxy keeps trying; try again shortly.",
        severity="FATAL",
        source=Source.SERVER,
        reason="server_unavailable",
    )


def switch_failed(tenant: str, said: Mapping[str, str], *, at_login: bool) -> ProxyError:
    """A shared backend could not be made a tenant's; `said` are the fields of the server's error, if any."""
    sqlstate, text = said.get("C", ""), said.get("M", "")
    if at_login and sqlstate.startswith(("22", "42")) and sqlstate != "42501" and 'role "' not in text:
        # the client's own settings, which a login would have refused in these words
        return ProxyError(
            sqlstate,
            text,
            detail=said.get("D"),
            hint=said.get("H"),
            severity="FATAL",
            reason="startup_setting",
        )
    return ProxyError(
        "08006",
        f'no backend could be made that of tenant "{tenant}"',
        detail=f"The server said: {text}." if text else "The server closed the connection.",
        hint="None of the statement has run; connect and try again. An operator finds more by `check`.",
        severity="FATAL",
        source=Source.SERVER,
        reason="switch_failed",
    )


def escalated(tenant: str) -> ProxyError:
    """A statement that needs a backend of the tenant's own, in the middle of a transaction."""
    return ProxyError(
        "40001",
        "the transaction must be tried again on a backend of its own",
        detail=f'It began on a backend that tenant "{tenant}" shares with others, where this statement '
        "must not run.",
        hint="Roll back and repeat it: from now on the tenant's transactions begin where all can run.",
        reason="escalated",
    )


def not_quiet(tenant: str) -> ProxyError:
    """A statement that may change a tenant's code, while transactions run on shared backends."""
    return ProxyError(
        "55P03",
        "code can't be changed while other transactions of the tenant run on shared backends",
        detail=f'Other transactions of tenant "{tenant}" have not ended in time.',
        hint="Repeat the statement when they have ended.",
        reason="not_quiet",
    )


def server_lost() -> ProxyError:
    return ProxyError(
        "08006",
        "the database server closed the connection unexpectedly",
        detail="Whether the statement in progress took effect is not known.",
        hint="Connect again and check before repeating the statement.",
        severity="FATAL",
        source=Source.SERVER,
        reason="server_lost",
    )


def stopped_timeout(tenant: str, waited_ms: int) -> ProxyError:
    """To who began something meanwhile, and has waited as long as for any connection."""
    return ProxyError(
        "57P03",
        f'tenant "{tenant}" is paused',
        detail=f"What was asked for has waited for {waited_ms} ms, and has not run.",
        hint="Connect again shortly; pool.queue_timeout_s says how long clients wait.",
        severity="FATAL",
        source=Source.PROXY,
        reason="tenant_paused",
    )


def moved_away(name: str) -> ProxyError:
    """To those who still hold a server when a move waits no longer."""
    return ProxyError(
        "57P01",
        f'terminating connection because tenant "{name}" is moved to another cluster',
        detail="The session held a connection that can't go with it.",
        hint="Connect again.",
        severity="FATAL",
        reason="tenant_moved",
    )


def queue_timeout(tenant: str, waited_ms: int) -> ProxyError:
    return ProxyError(
        "57P03",
        "timed out waiting for a database connection",
        detail=f'All connections of tenant "{tenant}" were busy for {waited_ms} ms.',
        hint="Shorten transactions, or ask the operator to raise the tenant's pool.max "
        "or pool.queue_timeout_s.",
        severity="FATAL",
        source=Source.PROXY,
        reason="queue_timeout",
    )


def storage_full(tenant: str) -> ProxyError:
    return ProxyError(
        "53100",
        f'tenant "{tenant}" has used up its storage',
        detail="Statements that add or change rows or make objects are refused; reading and deleting go on.",
        hint="Delete what is not needed and VACUUM, or ask whoever operates the platform for more.",
        reason="storage_full",
    )


def too_many_statements(tenant: str, wait_ms: int) -> ProxyError:
    return ProxyError(
        "53400",
        f'tenant "{tenant}" runs more statements a second than it may',
        detail=f"This one would have to wait for {wait_ms} ms, which is more than pool.queue_timeout_s.",
        hint="Send fewer, or ask whoever operates the platform for more (pool.statements_per_s).",
        reason="statement_rate",
    )


def queue_full(tenant: str, limit: int) -> ProxyError:
    return ProxyError(
        "53300",
        "too many clients are waiting for a database connection",
        detail=f'Tenant "{tenant}" may have {limit} waiting.',
        hint="Try again shortly, or ask the operator to raise the tenant's pool.queue_limit.",
        severity="FATAL",
        source=Source.PROXY,
        reason="queue_full",
    )


def _too_many(what: str, detail: str, hint: str) -> ProxyError:
    message, reason = f"too many {what}", f"too_many_{what}"
    return ProxyError("54000", message, detail=detail, hint=hint, source=Source.PROXY, reason=reason)


def too_many_channels(limit: int, what: str = "in transaction mode can listen to {} channels") -> ProxyError:
    hint = "Use UNLISTEN for those that are not needed, or tell them apart by the payload."
    return _too_many("channels", f"Through the proxy a client {what.format(limit)}.", hint)


def too_many_settings(limit: int) -> ProxyError:
    return _too_many("settings", f"The tenant has set {limit} with a dot.", "Name them in the statement.")


def notifications_lost() -> ProxyError:
    return ProxyError(
        "57P01",
        "terminating connection because notifications may have been lost",
        detail="The proxy's connection to the server that listened for this client has ended.",
        hint="Connect again, LISTEN, and then look for what was missed.",
        severity="FATAL",
        source=Source.SERVER,
        reason="notifications_lost",
    )


def too_many_pins(tenant: str, limit: int) -> ProxyError:
    return ProxyError(
        "53300",
        "too many clients keep a database connection of their own",
        detail=f'Tenant "{tenant}" may have {limit} clients with temporary tables, session advisory '
        "locks, WITH HOLD cursors or SQL PREPARE.",
        hint="End sessions that have such, or send DISCARD ALL in them; an operator can raise the tenant's "
        "pool.max_pins.",
        source=Source.PROXY,
        reason="too_many_pins",
    )


def query_timeout(seconds: float) -> ProxyError:
    return ProxyError(
        "57014",
        "canceling statement due to the proxy's query timeout",
        detail=f"The limit is {seconds:g} s.",
        severity="FATAL",
        source=Source.PROXY,
        reason="query_timeout",
    )


def idle_in_transaction_timeout(seconds: float) -> ProxyError:
    return ProxyError(
        "25P03",
        "terminating connection due to idle-in-transaction timeout",
        detail=f"The limit is {seconds:g} s.",
        severity="FATAL",
        reason="idle_in_transaction",
    )


def idle_timeout(seconds: float) -> ProxyError:
    return ProxyError(
        "57P05",
        "terminating connection due to idle-session timeout",
        detail=f"The limit is {seconds:g} s.",
        severity="FATAL",
        reason="client_idle",
    )


# --- statements ------------------------------------------------------------


def statement_too_large(size: int, limit: int) -> ProxyError:
    return ProxyError(
        "54000",
        "statement is too large to be checked",
        detail=f"It has {size} bytes, the limit is {limit}.",
        hint="Use COPY or bound parameters for bulk data, or ask the operator to raise "
        "limits.max_statement_bytes.",
        reason="statement_too_large",
    )


def statement_refused(
    sqlstate: str, message: str, *, detail: str = "", hint: str = "", position: int = 0, reason: str = ""
) -> ProxyError:
    """The guard's refusal: the fields of a Verdict whose action is REJECT."""
    return ProxyError(
        sqlstate,
        message,
        detail=detail or None,
        hint=hint or None,
        position=position or None,
        reason=reason,
    )


def replication_refused() -> ProxyError:
    return ProxyError(
        "0A000",
        "replication connections are not allowed through this proxy",
        hint="Connect to the server directly, or ask the operator to set policy.allow_replication "
        "for a tenant in session mode.",
        severity="FATAL",
        reason="replication_refused",
    )


def tenant_removed(tenant: str) -> ProxyError:
    return ProxyError(
        "57P01",
        f'tenant "{tenant}" was removed from the configuration',
        severity="FATAL",
        reason="tenant_removed",
    )


def locked_otherwise(tenant: str) -> ProxyError:
    return ProxyError(
        "57P01",
        f'the settings that are locked for tenant "{tenant}" have changed',
        hint="Connect again.",
        severity="FATAL",
        reason="locked_settings",
    )


def setting_refused(name: str, hint: str, detail: str | None = None) -> ProxyError:
    """A setting that a client may not change, by SET, set_config or the startup packet."""
    return ProxyError(
        "42501",
        f'permission denied to set parameter "{name}"',
        detail=detail,
        hint=hint,
        reason="setting_refused",
    )


def search_path_refused(schema_name: str, own_schema: str, setting: str = "search_path") -> ProxyError:
    return ProxyError(
        "42501",
        f"permission denied for schema {schema_name}",  # without quotes, as aclcheck_error() has it
        detail=f'The parameter "{setting}" names it.',
        hint=f'"{setting}" may name the tenant\'s own schema "{own_schema}", pg_catalog, information_schema, '
        "pg_temp and what the policy's allowed_schemas lists.",
        reason="search_path",
        schema=schema_name,
    )


def switch_refused(switch: str) -> ProxyError:
    """A command-line switch of the server in the startup parameter `options`."""
    return ProxyError(
        "42501",
        f'permission denied to use switch "{switch}" in options',
        hint="The startup parameter options takes -c name=value and --name=value.",
        severity="FATAL",
        reason="options",
    )


def invalid_setting_name(name: str) -> ProxyError:
    return ProxyError(
        "42602",
        f'invalid configuration parameter name "{name}"',
        hint="Parameter names are letters, digits, underscores and dollar signs, in parts separated by dots.",
        reason="setting_name",
    )


def invalid_setting_value(name: str, detail: str) -> ProxyError:
    return ProxyError("22023", f'invalid value for parameter "{name}"', detail=detail, reason="setting_value")


def prepared_statement_missing(name: str) -> ProxyError:
    return ProxyError(
        "26000",
        f'prepared statement "{name}" does not exist',
        reason="no_such_statement",
        routine="FetchPreparedStatement",
    )


def result_type_changed() -> ProxyError:
    message = "cached plan must not change result type"
    return ProxyError("0A000", message, reason="result_type_changed", routine="RevalidateCachedQuery")


def prepared_statement_exists(name: str) -> ProxyError:
    return ProxyError(
        "42P05",
        f'prepared statement "{name}" already exists',
        reason="statement_exists",
        routine="StorePreparedStatement",
    )


def internal_error(error_id: str) -> ProxyError:
    return ProxyError(
        "XX000",
        "internal error of the proxy",
        detail=f"It is logged with id {error_id}.",
        severity="FATAL",
        source=Source.PROXY,
        reason="internal",
    )


# --- admin console -----------------------------------------------------------


def reload_failed(problems: list[str]) -> ProxyError:
    """`problems` are one line each and name the file and line."""
    return ProxyError(
        "F0000",
        "the configuration could not be loaded; the one in force stays",
        detail="\n".join(problems),
        hint='Correct the file; "tenant-proxy check" tells the same without a reload.',
        source=Source.PROXY,
        reason="reload_failed",
    )
