"""What touches the network: probe order, time-outs, and the engine that dials.

Knows no Redis, no SQL and no scan: addresses and ports go in, verdicts come out.
"""
