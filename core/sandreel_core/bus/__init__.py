"""The bus: one port, a memory twin, JetStream, and the loops that every role shares.

Only `jetstream*.py` know nats-py, by what `nats_py.py` takes of it. Whatever is promised here is proved by one suite over both.
"""
