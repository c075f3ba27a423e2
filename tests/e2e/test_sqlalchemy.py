"""SQLAlchemy: ORM, reflection and DDL, over psycopg, psycopg2 and asyncpg."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(index=True)
    tags: Mapped[dict] = mapped_column(sa.JSON, default=dict)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request, each_mode):
    engine = sa.create_engine(each_mode.url(scheme=f"postgresql+{request.param}"), poolclass=NullPool)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def test_orm(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(
            Author(
                name="Jules",
                books=[Book(title="Vingt mille lieues", tags={"sea": True}), Book(title="Le tour")],
            )
        )
        session.commit()
    with Session(engine) as session:
        author = session.scalars(sa.select(Author).where(Author.name == "Jules")).one()
        assert [book.title for book in sorted(author.books, key=lambda b: b.id)] == [
            "Vingt mille lieues",
            "Le tour",
        ]
        assert author.books[0].tags == {"sea": True}
        session.add(Author(name="Jules"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        session.delete(author)
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 0


def test_reflection(engine):
    """The inspector reads the catalogs: tables, columns, keys, indexes, enums, views of the own schema."""
    Base.metadata.create_all(engine)
    inspector = sa.inspect(engine)
    assert inspector.default_schema_name == "acme"
    assert {"orders", "authors", "books"} <= set(inspector.get_table_names())
    assert inspector.get_view_names() == ["big_orders"]
    assert inspector.get_foreign_keys("books")[0]["referred_table"] == "authors"
    assert [index["column_names"] for index in inspector.get_indexes("books")] == [["title"]]
    assert inspector.get_enums()[0]["labels"] == ["good", "bad"]
    reflected = sa.MetaData()
    reflected.reflect(engine)
    assert reflected.tables["orders"].c.item.type.python_type is str


def test_alembic_like_changes(engine):
    """What migration tools send: DDL in a transaction, and a look for what is there."""
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE changes (version_num varchar(32) NOT NULL PRIMARY KEY)"))
        assert sa.inspect(conn).has_table("changes")
        conn.execute(sa.text("ALTER TABLE changes ADD COLUMN at timestamptz DEFAULT now()"))
        conn.execute(sa.text("CREATE UNIQUE INDEX changes_at ON changes (at)"))
        conn.execute(sa.text("DROP TABLE changes"))
        assert not sa.inspect(conn).has_table("changes")


def test_isolation_levels(engine):
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        assert conn.scalar(sa.text("SHOW transaction_isolation")) == "repeatable read"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        assert conn.scalar(sa.text("SELECT 1")) == 1


def test_a_pool_with_resets(each_mode):
    engine = sa.create_engine(each_mode.url(scheme="postgresql+psycopg"), pool_size=2, pool_pre_ping=True)
    try:
        for _ in range(5):
            with engine.connect() as conn:
                conn.execute(sa.text("CREATE TEMP TABLE mine (a int) ON COMMIT DROP"))
    finally:
        engine.dispose()


async def test_asyncpg_engine(each_mode):
    pytest.importorskip("greenlet", reason="SQLAlchemy's asyncio needs the package greenlet")
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(each_mode.url(scheme="postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with engine.begin() as conn:
            assert (
                await conn.execute(sa.text("SELECT item FROM orders WHERE id = :id"), {"id": 1})
            ).scalar() == "anvil"
            names = await conn.run_sync(lambda sync: sa.inspect(sync).get_table_names())
            assert "orders" in names
    finally:
        await engine.dispose()
