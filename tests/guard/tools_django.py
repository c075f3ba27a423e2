"""Run by test_tools: Django migrates, introspects and queries.  argv: host, port, user, password."""

from __future__ import annotations

import io
import sys

import django
from django.conf import settings

host, port, user, password = sys.argv[1:]
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": user,
            "PASSWORD": password,
            "HOST": host,
            "PORT": port,
        }
    },
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django.contrib.postgres",
    ],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.postgres.search import SearchQuery, SearchVector  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import Count, Exists, F, OuterRef, Q, Value, Window  # noqa: E402
from django.db.models.functions import Concat, Rank, TruncMonth  # noqa: E402

call_command("migrate", verbosity=0)
call_command("inspectdb", stdout=io.StringIO())
call_command("sqlflush", stdout=io.StringIO())
cursor = connection.cursor()
for table in connection.introspection.get_table_list(cursor):
    connection.introspection.get_table_description(cursor, table.name)
    connection.introspection.get_relations(cursor, table.name)
    connection.introspection.get_constraints(cursor, table.name)
    connection.introspection.get_sequences(cursor, table.name)
with transaction.atomic():
    person = User.objects.create_user("a", "a@example.com", "pw")
    person.groups.add(Group.objects.create(name="g"))
    found = User.objects.filter(Q(username__icontains="x") | ~Q(email__iregex="y"))
    found.annotate(n=Count("groups")).order_by("-n")[:5].exists()
    list(User.objects.prefetch_related("groups", "user_permissions").select_for_update())
    with transaction.atomic():
        User.objects.filter(pk=person.pk).update(first_name=Concat(F("last_name"), Value("x")))
    list(
        User.objects.annotate(
            month=TruncMonth("date_joined"),
            grouped=Exists(Group.objects.filter(user=OuterRef("pk"))),
            rank=Window(Rank(), order_by=F("id").asc()),
        ).values("month", "grouped", "rank")
    )
    User.objects.bulk_create([User(username=f"b{i}") for i in range(3)], ignore_conflicts=True)
    list(User.objects.filter(date_joined__year=2020, username__in=["a", "b"]).iterator())
    list(User.objects.annotate(s=SearchVector("username")).filter(s=SearchQuery("x")))
    person.delete()
