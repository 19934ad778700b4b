"""The bus: one port, a memory twin, JetStream, and the loops that every role shares.

Only `jetstream.py` knows nats-py. Whatever is promised here is proved by one suite over both.
"""
