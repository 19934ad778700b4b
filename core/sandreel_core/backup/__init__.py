"""Copies of an installation: every stream as the server itself takes it, and a dump of the views.

The law of this folder: a backup is whole or it is none (`manifest.json` is written last, and holds the digest of
everything else), and a stream that comes back never bears its old epoch, not for a moment.
"""
