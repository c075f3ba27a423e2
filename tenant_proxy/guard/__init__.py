"""The guard: whatever SQL a client sends, it stays in its tenant.

Four things, from fast to slow:

  shape    a statement's text without its plain literals (Cython)
  cache    verdicts that allow, by shape or by exact text, for each scope (Cython, for the relay)
  judge    a text's verdict: parsed by PostgreSQL's own grammar (pglast), walked, refused at the first
           thing that leads outside or that is not known
  data/    what is known of functions: facts from PostgreSQL's catalogs, and a list reviewed by hand

`policy.GuardScope` says in whose name is judged.  docs/guard.md has the rules and their reasons.
"""
