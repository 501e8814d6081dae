"""The store: plans and results in SQLite or MySQL/MariaDB, and the only place that knows SQL.

Chunk records come in through `outbox`, plans and questions through `repository`; both speak to a
`database` of one of the two `dialects`, whose schema `migrate` brings up to date. While it is away,
which the `breaker` knows, records go to the `spool`, and `drain` brings them in. The statements
themselves are in ``sql/``: named, commented, shared where both databases read them alike.
"""

__all__: list[str] = []
