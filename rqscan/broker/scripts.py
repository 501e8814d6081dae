"""The Lua scripts: one atomic step each, kept in .lua files beside this module.

Every script stands behind the same prelude (`prelude.lua`: Redis time, dates, bells, counts), and
behind what it shares with some others, no more: its functions are made anew at each call. It is
called by its SHA1. KEYS, ARGV and returns are stated at the top of each file.
"""

import hashlib
from pathlib import Path

__all__ = [
    "BEAT",
    "CANCEL",
    "CLAIM",
    "COUNT",
    "DISCARD",
    "ENQUEUE",
    "FINISH",
    "FIRE",
    "FOLLOW_UP",
    "KNOWN",
    "PURGE",
    "REQUEUE",
    "RESUME",
    "SCRIPTS",
    "SWEEP",
    "Script",
]


class Script:
    """One script: its text and the SHA1 that Redis knows it by once it is loaded."""

    def __init__(self, name: str, *shared: str) -> None:
        files = [Path(__file__).with_name(f"{part}.lua") for part in ("prelude", *shared, name)]
        self.text = "\n".join(file.read_text("utf-8") for file in files)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


ENQUEUE = Script("enqueue")
CLAIM = Script("claim")
FINISH = Script("finish", "ends")
BEAT = Script("beat", "ends", "rescue")
SWEEP = Script("sweep", "ends", "rescue")
CANCEL = Script("cancel", "ends")
PURGE = Script("purge", "ends")
COUNT = Script("count", "ends")
KNOWN = Script("known")
RESUME = Script("resume")
REQUEUE = Script("requeue", "ends")
DISCARD = Script("discard", "ends")
FOLLOW_UP = Script("follow_up")
FIRE = Script("fire")
SCRIPTS = (ENQUEUE, CLAIM, FINISH, BEAT, SWEEP, FOLLOW_UP)
