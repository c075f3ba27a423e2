"""A Django project whose one process serves all tenants, each by its host name (acme.localhost).

SHOP_DSN=postgresql://shop:SECRET@127.0.0.1:6432 python manage.py migrate --database acme
SHOP_DSN=… python manage.py runserver

The login `shop` was granted the tenants; which one a connection is for, the database's name says.
"""

import os
import sys
from urllib.parse import unquote, urlsplit

from django.conf import settings

dsn = urlsplit(os.environ["SHOP_DSN"])
settings.configure(
    DEBUG=os.environ.get("DEBUG") == "1",
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for trying out"),
    ALLOWED_HOSTS=[".localhost"],
    INSTALLED_APPS=["shop"],
    MIDDLEWARE=["shop.tenancy.Middleware"],
    ROOT_URLCONF="shop.urls",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    DATABASES={
        # nothing is done without a tenant: this one can't be connected to
        "default": {},
        # what all tenants' connections have in common
        "pattern": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": dsn.hostname,
            "PORT": dsn.port,
            "USER": unquote(dsn.username or ""),
            "PASSWORD": unquote(dsn.password or ""),
            # the proxy keeps the backends: a connection to it costs little and need not be kept
            "CONN_MAX_AGE": 0,
            # a cursor on the server outlives its transaction, and would keep a backend
            "DISABLE_SERVER_SIDE_CURSORS": True,
        },
    },
    DATABASE_ROUTERS=["shop.tenancy.Router"],
)

if __name__ == "__main__":
    import shop.tenancy
    from django.core.management import execute_from_command_line

    # a tenant's name is as good as a database's
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        if before == "--database":
            shop.tenancy.add(word)
    execute_from_command_line(sys.argv)
