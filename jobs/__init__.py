"""The scan kinds of this deployment, one module each.

To add one, put a module here:

1. a frozen ``Struct`` with the parameters (defaults, and ranges by ``msgspec.Meta``),
2. a generator ``f(addresses, params, run)`` that yields an `Observation` per fact,
3. above it ``@kind("name", params=Struct, probes_per_host=function of params)``; the first line
   of its docstring is what ``rqscan kinds`` shows.

Ask ``run.may_dial(address)`` before the first packet, tell ``run.advance(n)`` as probes end. A kind
that does may set ``stall_timeout_s``; ``retries`` takes the place of its queue's.
Import from ``rqscan.scan.kinds``, ``rqscan.model`` and ``rqscan.probe``; no Redis, no database.
"""
