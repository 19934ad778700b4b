"""Fixtures of the whole suite: real servers, started from their wheels."""

pytest_plugins = ["tests.support.nats", "tests.support.postgres"]
