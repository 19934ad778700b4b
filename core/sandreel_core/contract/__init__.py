"""Every message there is, as frozen types. Pure: no IO, no clock, no randomness, no logging.

Only optional fields are ever added; a changed meaning is a new type.
"""
