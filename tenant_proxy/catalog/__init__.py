"""The catalog of tenants in PostgreSQL: what is true of them (docs/decisions/0014-catalog-and-lifecycle.md).

    async with await Store.connect(dsn) as store:
        async with store.change("anna") as change:       # one transaction, its audit entries with it
            tenant = await change.tenant("acme")         # locked
            await change.update_tenant(tenant, "tenant.suspend", state=State.SUSPENDED, …)

`records` are what is read and written, `states` says which state may follow which, `effective` what a tenant
has of its plan and of itself, `audit` whether the log is whole, `migrate` brings the tables up to date.
Nothing here talks to the clusters that tenants live in: that is `lifecycle`.
"""
