-- Every event about a credential, and what a call was charged, as of the fifth schema. Frozen: a later change is a later file.

CREATE TABLE credential_log (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    partition INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    slug TEXT NOT NULL,
    turn TEXT,
    lease_id TEXT,
    lease_ids TEXT[],
    fingerprint TEXT,
    version INTEGER,
    purpose TEXT,
    exec TEXT,
    pid BIGINT,
    program TEXT,
    injected BOOLEAN,
    minted BOOLEAN,
    resource TEXT,
    expires_at TIMESTAMP WITH TIME ZONE,
    code TEXT,
    message TEXT,
    unsaid BIGINT NOT NULL,
    reason TEXT,
    ends TEXT,
    incarnation INTEGER,
    actor TEXT,
    command_id TEXT,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    said_at TIMESTAMP WITH TIME ZONE NOT NULL,
    cursor TEXT NOT NULL
);
CREATE INDEX credential_log_by_slug ON credential_log (org, session, slug, sequence);
CREATE INDEX credential_log_by_time ON credential_log (org, at);
COMMENT ON TABLE credential_log IS 'Every event about a credential, one by one; never a value. See reel.credentials and reel.credential_audit.';
COMMENT ON COLUMN credential_log.org IS 'organisation';
COMMENT ON COLUMN credential_log.session IS 'session';
COMMENT ON COLUMN credential_log.partition IS 'partition of the log';
COMMENT ON COLUMN credential_log.sequence IS 'place in that partition: the order of a session''s events';
COMMENT ON COLUMN credential_log.kind IS 'granted, leased, refused, revoked, or outlived: the issuer does not end a token whose lease has ended';
COMMENT ON COLUMN credential_log.slug IS 'name of the credential within the organisation';
COMMENT ON COLUMN credential_log.turn IS 'turn whose grant it is about; null: the session''s own';
COMMENT ON COLUMN credential_log.lease_id IS 'id of the lease';
COMMENT ON COLUMN credential_log.lease_ids IS 'leases that a revocation has ended';
COMMENT ON COLUMN credential_log.fingerprint IS 'keyed fingerprint of the value that was leased';
COMMENT ON COLUMN credential_log.version IS 'version of the stored value';
COMMENT ON COLUMN credential_log.purpose IS 'what it was granted or asked for, as the one who asked says';
COMMENT ON COLUMN credential_log.exec IS 'exec whose process asked';
COMMENT ON COLUMN credential_log.pid IS 'that process, inside the session';
COMMENT ON COLUMN credential_log.program IS 'argv[0] of the process and of those above it, nearest first; for people, it proves nothing';
COMMENT ON COLUMN credential_log.injected IS 'given to the whole exec as a variable: it cannot be un-known before that ends';
COMMENT ON COLUMN credential_log.minted IS 'a token that was made for this lease, and that its revocation ends where it was made';
COMMENT ON COLUMN credential_log.resource IS 'what such a token is limited to';
COMMENT ON COLUMN credential_log.expires_at IS 'when the grant or lease ends by itself';
COMMENT ON COLUMN credential_log.code IS 'why a lease was refused, one constant word';
COMMENT ON COLUMN credential_log.message IS 'why, one sentence';
COMMENT ON COLUMN credential_log.unsaid IS 'refusals like this one before it, of which the log has no event of their own';
COMMENT ON COLUMN credential_log.reason IS 'why it was revoked: asked, ungranted, stopped, destroyed, turn_ended or expired';
COMMENT ON COLUMN credential_log.ends IS 'which grants a revocation has ended: all, one (of turn) or none';
COMMENT ON COLUMN credential_log.incarnation IS 'life of the session that was created with the grant';
COMMENT ON COLUMN credential_log.actor IS 'who asked, as the command says that it came of';
COMMENT ON COLUMN credential_log.command_id IS 'id of that command';
COMMENT ON COLUMN credential_log.at IS 'when the stream server stored it';
COMMENT ON COLUMN credential_log.said_at IS 'when it was said, by the broker''s clock';
COMMENT ON COLUMN credential_log.cursor IS 'where it stands in the log: epoch:partition:sequence';

ALTER TABLE usage_calls ADD COLUMN charged_micro_usd BIGINT;
COMMENT ON COLUMN usage_calls.charged_micro_usd IS 'what the key''s budget was charged, where that is not the cost: an estimate of what was not told';
-- The bridge says the gateway's less the agent's.
COMMENT ON COLUMN usage_reconciled.drift_tokens IS 'input and output tokens that the gateway counted less those that the agent said; null: it said none';
COMMENT ON COLUMN usage_turns.drift_tokens IS 'input and output tokens that the gateway counted less those that the agent said; null: it said none';

COMMENT ON COLUMN execs.argv IS 'program and arguments; null when it is a shell text, and when the exec never started';
COMMENT ON COLUMN execs.shell IS 'text given to bash -lc; null when it is argv, and when the exec never started';
