"""SQLAlchemy in one process for all tenants: an engine for each, without a pool of its own.

SHOP_DSN=postgresql://shop:SECRET@127.0.0.1:6432 python shop.py migrate acme
SHOP_DSN=… python shop.py order acme anvil
"""

import os
import sys
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Engine, create_engine, func, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    ordered_at: Mapped[datetime] = mapped_column(server_default=func.now())


@lru_cache(maxsize=10_000)
def engine_of(tenant: str) -> Engine:
    """The database's name says which tenant.  NullPool: the proxy pools, and a connection to it costs little;
    with an engine's own pool, a thousand tenants would mean thousands of idle connections.
    """
    url = make_url(os.environ["SHOP_DSN"]).set(drivername="postgresql+psycopg", database=tenant)
    return create_engine(url, poolclass=NullPool)


def main(verb: str, tenant: str, *rest: str) -> None:
    engine = engine_of(tenant)
    if verb == "migrate":
        Base.metadata.create_all(engine)  # a larger application has Alembic here
        return
    with Session(engine) as session, session.begin():
        session.add(Order(item=rest[0]))
        session.flush()
        print(*session.scalars(select(Order.item).order_by(Order.id)))


if __name__ == "__main__":
    main(*sys.argv[1:])
