"""Which tenant a request is for: the first word of its host name."""

import re
from contextvars import ContextVar

from django.db import connections
from django.http import HttpResponseNotFound

_tenant: ContextVar[str | None] = ContextVar("tenant", default=None)


def add(tenant: str) -> str:
    """A tenant as one of Django's databases, under its own name."""
    if not re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,62}", tenant):
        raise ValueError("no name of a tenant")
    if tenant not in connections.databases:
        connections.databases[tenant] = {**connections.databases["pattern"], "NAME": tenant}
    return tenant


class Middleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        try:
            tenant = add(request.get_host().partition(".")[0])
        except ValueError:
            return HttpResponseNotFound()
        token = _tenant.set(tenant)
        try:
            return self.get_response(request)
        finally:
            _tenant.reset(token)


class Router:
    def db_for_read(self, model, **hints):
        return _tenant.get()

    db_for_write = db_for_read
