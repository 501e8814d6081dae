"""Scan kinds that misbehave, for the tests: a jobs folder of its own (`Rig.use_odd_kinds`)."""
