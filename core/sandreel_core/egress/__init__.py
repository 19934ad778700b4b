"""The egress proxy: a session's only way out. It resolves, refuses what is not global, and dials exactly what it checked.

The law of this folder: what is decided (`address`, `target`, `request`, `rules`, `denials`) knows no socket, and what
opens one (`dial`, `proxy`, `tunnel`) decides nothing.
"""
