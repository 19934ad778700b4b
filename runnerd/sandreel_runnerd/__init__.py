"""The recorder inside a session: PID 1, sole writer of its execs. Needs nats-py, msgspec and core alone."""
