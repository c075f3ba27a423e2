"""Whatever is asked in whatever order: a tenant is only ever in a state that may follow the one before."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenant_proxy.catalog import states
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs

VERBS = {
    "create": lambda verbs, name: verbs.tenant_create(NewTenant(name=name)),
    "provision": lambda verbs, name: verbs.tenant_provision(name),
    "activate": lambda verbs, name: verbs.tenant_activate(name),
    "suspend": lambda verbs, name: verbs.tenant_suspend(name),
    "resume": lambda verbs, name: verbs.tenant_resume(name),
    "delete": lambda verbs, name: verbs.tenant_delete(name),
    "restore": lambda verbs, name: verbs.tenant_restore(name),
    "onboard": lambda verbs, name: verbs.tenant_onboard(NewTenant(name=name), NewAccess(login=name)),
    "set": lambda verbs, name: verbs.tenant_set(name, labels={"a": "b"}),
}

#: every state that the row was in, in order
WATCH = """
CREATE TABLE history (n int GENERATED ALWAYS AS IDENTITY, id bigint, state text, failed_from text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO tenant_proxy.history (id, state, failed_from) VALUES (NEW.id, NEW.state, NEW.failed_from);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON tenant FOR EACH ROW EXECUTE FUNCTION note();
"""


async def follow(town: Any, name: str, sequence: list[str]) -> list[tuple[int, str, str | None]]:
    async with await Context.open(Config.model_validate(town.config()), "anna") as context:
        for verb in sequence:
            try:
                await VERBS[verb](Verbs(context), name)
            except Failure as failure:
                assert failure.code in ("conflict", "not_found", "exists"), failure  # noqa: PT017
        async with context.store.read() as connection:
            rows = await connection.fetch(
                """SELECT h.id, h.state, h.failed_from FROM history h JOIN tenant t USING (id)
                    WHERE t.name = $1 ORDER BY n""",
                name,
            )
    return [tuple(row) for row in rows]


def test_any_sequence_of_verbs_keeps_to_the_states(town):
    with town.connect(database=town.catalog_dsn.rsplit("/", 1)[1]) as conn:
        conn.execute("SET search_path = tenant_proxy")
        conn.execute(WATCH)
    numbers = itertools.count()

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(sorted(VERBS)), min_size=3, max_size=10))
    def any_sequence(sequence: list[str]) -> None:
        before: dict[int, tuple[State, State | None]] = {}
        name = f"s{next(numbers)}"
        for number, state, failed_from in asyncio.run(follow(town, name, ["create", *sequence])):
            now, failed = State(state), State(failed_from) if failed_from else None
            if number in before:
                last, last_failed = before[number]
                assert now is last or states.may_follow(last, now, last_failed), sequence
            else:
                assert now is State.DRAFT
            before[number] = now, failed
        # one at most is not erased
        assert sum(state is not State.ERASED for state, _ in before.values()) <= 1

    any_sequence()
