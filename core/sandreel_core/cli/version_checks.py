"""What `sandreel doctor` says of sessions whose runnerd was booted by another release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandreel_core.cli.check import Check
from sandreel_core.cli.text import clean
from sandreel_core.contract.versions import mismatch

if TYPE_CHECKING:
    from sandreel_core.client import SessionInfo

# Sessions named one by one; an upgrade may leave thousands behind.
_NAMED = 20
_NAME = "contract version"
_MEND = "stop and resume them: sandreel session stop SESSION, sandreel session resume SESSION"


def judge(running: list[SessionInfo], ours: int) -> list[Check]:
    """Of sessions with a living boot. Pure."""
    others = [info for info in running if info.state.contract_version != ours]
    if not others:
        return [Check(name=_NAME, level="ok", found=f"{ours}, as all {len(running)} running sessions speak")]
    found = [_check(info, ours) for info in sorted(others, key=lambda info: info.state.contract_version)[:_NAMED]]
    if len(others) > _NAMED:
        found.append(Check(name=_NAME, level="warn", found=f"and {len(others) - _NAMED} more sessions", mend=_MEND))
    return found


def _check(info: SessionInfo, ours: int) -> Check:
    name = clean(f"{_NAME} of {info.org}/{info.session}")
    mend = f"sandreel session stop --org {info.org} {info.session} && sandreel session resume --org {info.org} {info.session}"
    sentence = mismatch(info.session, info.state.contract_version, ours)
    if sentence is not None:
        return Check(name=name, level="fail", found=f"{sentence}; new execs are refused", mend=mend)
    found = f"its recorder speaks {info.state.contract_version}, one behind: it works, and the next upgrade refuses it"
    return Check(name=name, level="warn", found=found, mend=mend)
