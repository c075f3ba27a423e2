"""An oracle that does not know the parser: runs a statement by a role that may do everything everywhere.

It says whether the statement has touched the neighbour: locks on its relations, calls of its functions, use
of its tables; and whether the session is still who and where it was.
"""

from __future__ import annotations

from typing import Any, Self

import psycopg

from tenant_proxy.devel.postgres import Server
from tenant_proxy.settings_policy import client_encoding_codec

#: what the statements just run in this transaction have touched; and the session's identity
_TOUCHED = """
SELECT pg_catalog.concat_ws(', ',
    (SELECT pg_catalog.string_agg('lock on ' OPERATOR(pg_catalog.||) c.relname, ', ')
       FROM pg_catalog.pg_locks l
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
       JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
        AND n.nspname OPERATOR(pg_catalog.=) 'beta'),
    (SELECT pg_catalog.string_agg('call of ' OPERATOR(pg_catalog.||) funcname, ', ')
       FROM pg_catalog.pg_stat_xact_user_functions WHERE schemaname OPERATOR(pg_catalog.=) 'beta'),
    (SELECT pg_catalog.string_agg('use of ' OPERATOR(pg_catalog.||) relname, ', ')
       FROM pg_catalog.pg_stat_xact_user_tables
      WHERE schemaname OPERATOR(pg_catalog.=) 'beta'
        AND COALESCE(seq_scan, 0) OPERATOR(pg_catalog.+) COALESCE(idx_scan, 0)
            OPERATOR(pg_catalog.+) n_tup_ins
            OPERATOR(pg_catalog.+) n_tup_upd OPERATOR(pg_catalog.+) n_tup_del OPERATOR(pg_catalog.>) 0)),
  current_user, session_user, pg_catalog.current_setting('search_path'),
  pg_catalog.current_setting('standard_conforming_strings'),
  pg_catalog.current_setting('backslash_quote'),
  pg_catalog.current_setting('client_encoding'),
  pg_catalog.current_setting('session_replication_role'),
  pg_catalog.current_setting('exit_on_error')
"""

_OPTIONS = "-c search_path=acme,public -c statement_timeout=500 -c lock_timeout=200"


class Oracle:
    """Statements of one session, opened again when one of them has touched something."""

    def __init__(self, server: Server, database: str = "postgres") -> None:
        self._server = server
        self._database = database
        self._connection: psycopg.Connection | None = None
        #: statements that ran to their end
        self.ran = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def touched(self, *statements: str) -> str:
        """Runs the statements in a transaction that is undone; "" if they fail or touch nothing."""
        if self._connection is None:
            dsn = self._server.dsn(user="acme_app", password="secret", database=self._database)
            self._connection = psycopg.connect(dsn, autocommit=True, options=_OPTIONS, prepare_threshold=None)
        run = self._connection.execute
        try:
            run("BEGIN")
            for sql in statements:
                run(sql.encode())
            found: Any = run(_TOUCHED).fetchone()
            self.ran += 1
            run("ROLLBACK; DEALLOCATE ALL; CLOSE ALL")
        except psycopg.Error:
            # what a failed statement has touched is still counted, and shows behind the next one
            if self._connection.closed:
                self.close()
            else:
                run("ROLLBACK; DEALLOCATE ALL; CLOSE ALL")
            return ""
        what, *who = found
        if who[:2] != ["acme_app", "acme_app"] or "beta" in who[2]:
            what += f" as {who[:3]}"
        encoding = who.pop(5)
        if who[3:] != ["on", "safe_encoding", "origin", "off"] or client_encoding_codec(encoding) is None:
            what += f" with {who[3:]} {encoding}"
        if what:
            self.close()  # counters go on through transactions
        return str(what)

    def calls_it_syntax(self, sql: str) -> bool:
        """Whether the server itself finds fault with a statement's form, or does not get that far."""
        self.close()
        dsn = self._server.dsn(user="acme_app", password="secret", database=self._database)
        with psycopg.connect(dsn, autocommit=True, options=_OPTIONS) as connection:
            try:
                connection.execute("BEGIN")
                connection.execute(sql.encode())
            except psycopg.Error:
                return True
            return False
