"""What platform services import: send commands, get their outcomes, read execs from any cursor.

The law of this folder: a command is sent once however often it is tried, and its outcome is the first event
that names it as its cause; every wait is bounded; nothing is collected without a cap.
"""

from sandreel_core.client.client import Client
from sandreel_core.client.commands import Outcome
from sandreel_core.client.env import Environment, Variables
from sandreel_core.client.files import Files
from sandreel_core.client.handle import ExecHandle
from sandreel_core.client.items import Changed, Ended, ExecItem, Gap, Output
from sandreel_core.client.keyboard import Keyboard
from sandreel_core.client.once import Once, OneShot
from sandreel_core.client.result import Result
from sandreel_core.client.sessions import ExecInfo, SessionInfo
from sandreel_core.client.settings import ClientSettings
from sandreel_core.client.turn_handle import TurnHandle
from sandreel_core.client.turn_info import TurnInfo
from sandreel_core.client.turn_items import TurnEntry, TurnItem, TurnResult
from sandreel_core.messages import ChatMessage

__all__ = [
    "Changed",
    "ChatMessage",
    "Client",
    "ClientSettings",
    "Ended",
    "Environment",
    "ExecHandle",
    "ExecInfo",
    "ExecItem",
    "Files",
    "Gap",
    "Keyboard",
    "Once",
    "OneShot",
    "Outcome",
    "Output",
    "Result",
    "SessionInfo",
    "TurnEntry",
    "TurnHandle",
    "TurnInfo",
    "TurnItem",
    "TurnResult",
    "Variables",
]
