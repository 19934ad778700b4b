"""Servers out of wheels, for one machine: what `sandreel up` and the tests run NATS and Postgres with."""
