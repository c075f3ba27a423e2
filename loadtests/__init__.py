"""Load tests: PostgreSQL directly, PgBouncer and this proxy do the same work side by side."""
