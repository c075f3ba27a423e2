"""Who is it?  Both sides of PostgreSQL's authentication exchange, without I/O.

- `rules`: the first of the ordered rules that fits a connection names the method.
- `secret.Secret`: what is kept of a user's password (the text, a SCRAM verifier, an md5 hash).
- `client_auth.ClientAuth`: the proxy as the server of the exchange with a client.
- `server_auth.ServerAuth`: the proxy as the client of the exchange with a PostgreSQL server.
- `scram`, `verify`, `saslprep`, `tls`: the arithmetic under them.

Bytes in, bytes out; the caller owns sockets, time and threads.  The one slow step,
PBKDF2 (about 1 ms at 4096 rounds), can be handed to a thread: see `ClientAuth.deferred`.
Whatever a peer sends, nothing but `ProxyError` is raised.
"""
