"""The coding agents: how each is started, and how its output becomes agent events. Pure.

The law of this folder: an adapter takes what it knows, passes on what it does not know as `agent.raw`, and never raises for
what a program printed. One file an agent, one row in `table`; `docs/agents.md` says how to add one.
"""
