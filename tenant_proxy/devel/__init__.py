"""What the demo, the tests and the load tests share: an embedded PostgreSQL. Not used by the proxy."""
