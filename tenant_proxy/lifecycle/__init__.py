"""The tenants' life: what is done to them on their clusters, recorded in the catalog.

`verbs` is the one door.  What takes more than one transaction is a job (`jobs`): steps that can be undone,
gone on with by whoever finds it when the process that began it is gone.
"""
