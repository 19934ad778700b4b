"""The broker: values in a vault, grants and leases in the log. A value leaves here sealed to one session's key, or not at all."""
