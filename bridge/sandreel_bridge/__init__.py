"""Coding agents on top of sessions: adapters, turns, steering, gateway, edge."""
