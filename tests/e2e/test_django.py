"""Django: its own migrations and an ORM session in a tenant's schema.

Django's settings are one per process, so each test runs a small program of its own.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SETTINGS = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DATABASES={{"default": {{
        "ENGINE": "django.db.backends.postgresql", "NAME": "app", "USER": "acme_app",
        "PASSWORD": "acme-secret", "HOST": "{host}", "PORT": "{port}",
        "DISABLE_SERVER_SIDE_CURSORS": {no_cursors},
        "OPTIONS": {{"server_side_binding": {binding}}},
    }}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    SECRET_KEY="of tests",
)
django.setup()
from django.core.management import call_command
from django.db import connection, transaction
"""

PROGRAM = """
call_command("migrate", verbosity=0)
from django.contrib.auth.models import Group, Permission, User
ann = User.objects.create_user("ann", "ann@example.org", "secret")
group = Group.objects.create(name="editors")
ann.groups.add(group)
group.permissions.set(Permission.objects.filter(codename__startswith="add_"))
assert User.objects.filter(groups__name="editors").count() == 1
assert ann.has_perm("auth.add_user")
try:
    with transaction.atomic():
        User.objects.create_user("ann")
except django.db.IntegrityError:
    pass
else:
    raise AssertionError("two of one name")
with transaction.atomic():
    assert User.objects.select_for_update().get(username="ann").email == "ann@example.org"
Group.objects.bulk_create([Group(name=f"group {n}") for n in range(500)])
assert sum(1 for _ in Group.objects.iterator(chunk_size=50)) == 501
with connection.cursor() as cursor:
    tables = connection.introspection.table_names(cursor)
    assert {"auth_user", "orders", "django_migrations"} <= set(tables), tables
    cursor.execute("SELECT item FROM orders WHERE id = %s", [2])
    assert cursor.fetchone() == ("rocket",)
call_command("inspectdb", "orders", stdout=open("/dev/null", "w"))
call_command("flush", verbosity=0, interactive=False)
call_command("migrate", "auth", "zero", verbosity=0)
print("done")
"""


@pytest.fixture
def clean_schema(superuser):
    """Removes the tables that Django has made."""
    yield
    tables = superuser.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'acme' AND tablename ~ '^(auth|django)_'"
    ).fetchall()
    for (name,) in tables:
        superuser.execute(f"DROP TABLE acme.{name} CASCADE")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("binding", [True, False], ids=["server-binding", "client-binding"])
def test_migrations_and_orm(each_mode, clean_schema, binding):
    settings = SETTINGS.format(host=each_mode.host, port=each_mode.port, no_cursors=False, binding=binding)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(settings + PROGRAM)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout.strip().endswith("done"), done.stderr[-3000:]
