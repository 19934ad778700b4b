"""The table behind `reel.credentials` and `reel.credential_audit`."""

from __future__ import annotations

from sqlalchemy import Index, Table

from sandreel_projections.columns import count, flag, metadata, names, number, text, time

credential_log = Table(
    "credential_log",
    metadata,
    text("org", "organisation", null=False),
    text("session", "session", null=False),
    number("partition", "partition of the log"),
    count("sequence", "place in that partition: the order of a session's events"),
    text(
        "kind",
        "granted, leased, refused, revoked, or outlived: the issuer does not end a token whose lease has ended",
        null=False,
    ),
    text("slug", "name of the credential within the organisation", null=False),
    text("turn", "turn whose grant it is about; null: the session's own"),
    text("lease_id", "id of the lease"),
    names("lease_ids", "leases that a revocation has ended"),
    text("fingerprint", "keyed fingerprint of the value that was leased"),
    number("version", "version of the stored value", null=True),
    text("purpose", "what it was granted or asked for, as the one who asked says"),
    text("exec", "exec whose process asked"),
    count("pid", "that process, inside the session", null=True),
    text("program", "argv[0] of the process and of those above it, nearest first; for people, it proves nothing"),
    flag("injected", "given to the whole exec as a variable: it cannot be un-known before that ends", null=True),
    flag("minted", "a token that was made for this lease, and that its revocation ends where it was made", null=True),
    text("resource", "what such a token is limited to"),
    time("expires_at", "when the grant or lease ends by itself"),
    text("code", "why a lease was refused, one constant word"),
    text("message", "why, one sentence"),
    count("unsaid", "refusals like this one before it, of which the log has no event of their own"),
    text("reason", "why it was revoked: asked, ungranted, stopped, destroyed, turn_ended or expired"),
    text("ends", "which grants a revocation has ended: all, one (of turn) or none"),
    number("incarnation", "life of the session that was created with the grant", null=True),
    text("actor", "who asked, as the command says that it came of"),
    text("command_id", "id of that command"),
    time("at", "when the stream server stored it", null=False),
    time("said_at", "when it was said, by the broker's clock", null=False),
    text("cursor", "where it stands in the log: epoch:partition:sequence", null=False),
    Index("credential_log_by_slug", "org", "session", "slug", "sequence"),
    Index("credential_log_by_time", "org", "at"),
    comment="Every event about a credential, one by one; never a value. See reel.credentials and reel.credential_audit.",
)
