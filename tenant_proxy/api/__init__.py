"""REST over the verbs of the tenants' life, and the client for it.

`permissions` is the table of who may do what, `guarded` what every request goes through (who asks, may they,
was it asked before), `routes` what can be asked, `problems` how errors look, `client` the other side: a Door
like `lifecycle.verbs`.
"""
