"""What every driver of one bridge works with."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_bridge.gateway.port import Gateway
from sandreel_bridge.index import Index
from sandreel_bridge.keys import Keys
from sandreel_bridge.line import Line
from sandreel_bridge.measures import BridgeMeasures
from sandreel_bridge.prompts import Prompts
from sandreel_bridge.settings import Settings
from sandreel_core.bus.port import Bus
from sandreel_core.client import Client


@dataclass(frozen=True, slots=True)
class Tools:
    """`gateway` None: none is configured, and turns are refused."""

    bus: Bus
    client: Client
    index: Index
    line: Line
    prompts: Prompts
    keys: Keys
    gateway: Gateway | None
    settings: Settings
    measures: BridgeMeasures
