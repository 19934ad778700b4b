"""Which runnerds somebody of a contract version works with. A session outlives upgrades: its runnerd is the one it was booted with."""

from __future__ import annotations

from sandreel_core.contract.catalog import CONTRACT_VERSION

# One upgrade with sessions left running is the rule; two in a row ask for a stop and a resume between them.
VERSIONS_BACK = 1


def understands(runnerd: int, ours: int = CONTRACT_VERSION) -> bool:
    """Whether a runnerd of this version and somebody of `ours` may work together (docs/decisions/0021)."""
    return ours - VERSIONS_BACK <= runnerd <= ours


def mismatch(session: str, runnerd: int, ours: int = CONTRACT_VERSION) -> str | None:
    """One sentence for a runnerd that is too old or too new, with what to do; None for one that is neither."""
    if understands(runnerd, ours):
        return None
    which = "older" if runnerd < ours else "newer"
    return (
        f"the recorder of session {session} speaks contract version {runnerd}, which is too much {which} than the {ours}"
        " spoken here: stop and resume the session"
    )
