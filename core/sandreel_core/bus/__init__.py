"""The bus: one port, a memory twin, JetStream, and the loops that every role shares.

Only the files `jetstream*.py` know nats-py. Whatever is promised here is proved by one suite over both.
"""
