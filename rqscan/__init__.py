"""rqscan: a distributed scan runner on RQ that loses no job and no result.

The floors of the house, top to bottom: ``cli`` → ``monitor | schedule`` → ``fleet`` → ``scan`` →
``store | broker`` → ``probe`` → the ground floor (``logs``, ``config``, ``model``, ``states``,
``clock``, ``errors``). Imports go downward only; docs/architecture.md draws it.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
