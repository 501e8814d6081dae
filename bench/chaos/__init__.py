"""Chaos: a fleet at work, random deaths and outages, and an account of every job at the end.

`python -m bench.chaos` wires it: `run` starts the servers and the fleet, `load` (a process of its
own) keeps enqueuing, `faults` breaks something every two seconds or so, `observer` times how each
orphan comes back, `verdict` counts what was lost or doubled, and `rows` the rows in the store. With
`--database` that is a server (`store`), which breaks as well. `ours` and `stock` say what is
different between rqscan and RQ's own worker; the rest is the same for both.
"""
