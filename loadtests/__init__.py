"""Load tests: the same work against PostgreSQL directly, PgBouncer and tenant_proxy, side by side.

The pieces, from the bottom:

- `procfs`: what Linux knows of a process tree: its CPU time and memory;
- `stats`: medians, percentiles, ratios, windows of time;
- `wire`: a lean PostgreSQL client for what pgbench can't do (idle clients, bulk data);
- `pgbench`: one run of pgbench and the reading of its transaction log;
- `servers` and `targets`: PostgreSQL and what stands before it, started and ended here;
- `scenarios`: the list of what is measured;  `work`: how each kind of it is measured;
- `bench`: rounds of scenarios over targets;  `results`: what came of it, as JSON;
- `goals`, `report`, `plots`: what it means; `profile`: where a worker's time goes.

Run `python -m loadtests --help`; README.md says how to read the figures.
"""
