"""tenant_proxy: one PostgreSQL cluster serves many tenants, each in its own schema."""

__version__ = "0.1.0"
