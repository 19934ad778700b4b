"""Contract, bus, client, spawner and broker. Depends on nothing else of sandreel."""

__version__ = "0.1.0"
