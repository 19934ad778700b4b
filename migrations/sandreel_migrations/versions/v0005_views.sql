-- Who may have which credential, and who has had it, as of the fifth schema. Frozen: a later change is a later file. Every
-- view runs with the rights of who asks (security_invoker), so that row-level security holds behind it.

-- A grant ends with the first event behind it that takes it back, or that grants the same anew on other terms.
CREATE VIEW credentials WITH (security_invoker = true) AS
    SELECT
        g.org, g.session, g.slug, g.turn, g.purpose,
        CASE WHEN e.kind = 'granted' THEN 'replaced' WHEN e.kind = 'revoked' THEN 'ended'
             WHEN g.expires_at <= now() THEN 'expired' ELSE 'standing' END AS state,
        g.actor AS granted_by, g.command_id, g.incarnation, g.at AS granted_at, g.expires_at, e.at AS ended_at,
        e.reason AS end_reason, e.actor AS ended_by,
        (SELECT count(*) FROM credential_log AS l
         WHERE l.org = g.org AND l.session = g.session AND l.slug = g.slug AND l.kind = 'leased'
           AND l.turn IS NOT DISTINCT FROM g.turn AND l.sequence > g.sequence
           AND (e.sequence IS NULL OR l.sequence < e.sequence)) AS leases,
        g.cursor AS granted_cursor, e.cursor AS ended_cursor
    FROM credential_log AS g
        LEFT JOIN LATERAL (
            SELECT x.kind, x.at, x.reason, x.actor, x.sequence, x.cursor FROM credential_log AS x
            WHERE x.org = g.org AND x.session = g.session AND x.slug = g.slug AND x.sequence > g.sequence
              AND ((x.kind = 'granted' AND x.turn IS NOT DISTINCT FROM g.turn)
                   OR (x.kind = 'revoked' AND (x.ends = 'all' OR (x.ends = 'one' AND x.turn IS NOT DISTINCT FROM g.turn))))
            ORDER BY x.sequence LIMIT 1
        ) AS e ON true
    WHERE g.kind = 'granted';
COMMENT ON VIEW credentials IS
    'One row per grant: which session, or which turn of it, may ask for which credential, since when and until when. A grant on other terms is another row.';
COMMENT ON COLUMN credentials.org IS 'organisation';
COMMENT ON COLUMN credentials.session IS 'session';
COMMENT ON COLUMN credentials.slug IS 'name of the credential within the organisation';
COMMENT ON COLUMN credentials.turn IS 'the turn that it is granted to; null: the whole session';
COMMENT ON COLUMN credentials.purpose IS 'what it was granted for';
COMMENT ON COLUMN credentials.state IS 'standing, ended (taken back), expired (and not yet said to be ended) or replaced (granted anew, on other terms)';
COMMENT ON COLUMN credentials.granted_by IS 'actor of the command; null: the session was created with it';
COMMENT ON COLUMN credentials.command_id IS 'id of the credential.grant';
COMMENT ON COLUMN credentials.incarnation IS 'life of the session that was created with the grant';
COMMENT ON COLUMN credentials.granted_at IS 'when the stream server stored the grant';
COMMENT ON COLUMN credentials.expires_at IS 'when it ends by itself; null: never';
COMMENT ON COLUMN credentials.ended_at IS 'when the stream server stored its end';
COMMENT ON COLUMN credentials.end_reason IS 'why it ended: asked, ungranted, stopped, destroyed, turn_ended or expired';
COMMENT ON COLUMN credentials.ended_by IS 'actor of the command that took it back; null: nobody did';
COMMENT ON COLUMN credentials.leases IS 'how often a value was leased by it';
COMMENT ON COLUMN credentials.granted_cursor IS 'event that granted it: epoch:partition:sequence';
COMMENT ON COLUMN credentials.ended_cursor IS 'event that ended it: epoch:partition:sequence';

CREATE VIEW credential_audit WITH (security_invoker = true) AS
    SELECT
        l.at, l.org, l.session, l.kind, l.slug, l.fingerprint, l.version, l.lease_id, l.purpose,
        CASE WHEN l.kind <> 'leased' THEN NULL WHEN e.cursor IS NOT NULL THEN 'ended'
             WHEN l.expires_at <= now() THEN 'expired' ELSE 'held' END AS state,
        l.turn, coalesce(t.requested_by, CASE WHEN l.kind IN ('granted', 'revoked') THEN l.actor END) AS asked_by,
        g.actor AS granted_by, l.exec, l.pid, l.program, l.injected, l.minted, l.resource,
        l.expires_at, CASE WHEN l.kind = 'leased' THEN l.cursor END AS held_from, e.cursor AS held_to, e.at AS ended_at,
        coalesce(e.reason, l.reason) AS reason, l.ends, l.lease_ids, l.code, l.message, l.unsaid, l.command_id, l.cursor
    FROM credential_log AS l
        LEFT JOIN turns AS t ON t.org = l.org AND t.session = l.session AND t.turn = l.turn
        LEFT JOIN LATERAL (
            SELECT x.actor FROM credential_log AS x
            WHERE l.kind = 'leased' AND x.org = l.org AND x.session = l.session AND x.slug = l.slug AND x.kind = 'granted'
              AND x.turn IS NOT DISTINCT FROM l.turn AND x.sequence < l.sequence
            ORDER BY x.sequence DESC LIMIT 1
        ) AS g ON true
        LEFT JOIN LATERAL (
            SELECT x.at, x.reason, x.cursor FROM credential_log AS x
            WHERE l.kind = 'leased' AND x.org = l.org AND x.session = l.session AND x.slug = l.slug AND x.kind = 'revoked'
              AND l.lease_id = ANY (x.lease_ids) AND x.sequence > l.sequence
            ORDER BY x.sequence LIMIT 1
        ) AS e ON true;
COMMENT ON VIEW credential_audit IS
    'Who held which credential from where to where in the log, asked for by which program for what; and every grant, refusal and revocation. Never a value.';
COMMENT ON COLUMN credential_audit.at IS 'when the stream server stored it';
COMMENT ON COLUMN credential_audit.org IS 'organisation';
COMMENT ON COLUMN credential_audit.session IS 'session';
COMMENT ON COLUMN credential_audit.kind IS 'leased, or granted, refused, revoked, outlived (a token of an ended lease works still, until expires_at)';
COMMENT ON COLUMN credential_audit.slug IS 'name of the credential within the organisation';
COMMENT ON COLUMN credential_audit.fingerprint IS 'keyed fingerprint of the value that was leased: the same value has the same one';
COMMENT ON COLUMN credential_audit.version IS 'version of the stored value';
COMMENT ON COLUMN credential_audit.lease_id IS 'id of the lease';
COMMENT ON COLUMN credential_audit.purpose IS 'what it was granted or asked for, as the one who asked says';
COMMENT ON COLUMN credential_audit.state IS 'of a lease: held, ended, or expired (and not yet said to be ended)';
COMMENT ON COLUMN credential_audit.turn IS 'turn whose grant it is by, or that a grant or revocation is about; null: the session''s own';
COMMENT ON COLUMN credential_audit.asked_by IS 'who holds it: actor who asked for the turn; of a grant or revocation actor of its command';
COMMENT ON COLUMN credential_audit.granted_by IS 'actor of the grant that the lease is by; null: the session was created with it';
COMMENT ON COLUMN credential_audit.exec IS 'exec whose process asked';
COMMENT ON COLUMN credential_audit.pid IS 'that process, inside the session';
COMMENT ON COLUMN credential_audit.program IS 'argv[0] of the process and of those above it, nearest first; for people, it proves nothing';
COMMENT ON COLUMN credential_audit.injected IS 'given to the whole exec as a variable: it cannot be un-known before that ends';
COMMENT ON COLUMN credential_audit.minted IS 'a token that was made for this lease, and that its revocation ends where it was made';
COMMENT ON COLUMN credential_audit.resource IS 'what such a token is limited to';
COMMENT ON COLUMN credential_audit.expires_at IS 'when the lease or grant ends by itself';
COMMENT ON COLUMN credential_audit.held_from IS 'of a lease: its event, after which the session has had the value';
COMMENT ON COLUMN credential_audit.held_to IS 'of a lease: the event that ended it; null: there is none yet';
COMMENT ON COLUMN credential_audit.ended_at IS 'when the stream server stored the end of the lease';
COMMENT ON COLUMN credential_audit.reason IS 'why the lease ended, or of a revocation why: asked, ungranted, stopped, destroyed, turn_ended or expired';
COMMENT ON COLUMN credential_audit.ends IS 'which grants a revocation has ended: all, one (of turn) or none';
COMMENT ON COLUMN credential_audit.lease_ids IS 'leases that a revocation has ended';
COMMENT ON COLUMN credential_audit.code IS 'of a refusal, one constant word';
COMMENT ON COLUMN credential_audit.message IS 'of a refusal, one sentence';
COMMENT ON COLUMN credential_audit.unsaid IS 'refusals like this one before it, of which the log has no event of their own';
COMMENT ON COLUMN credential_audit.command_id IS 'id of the command that it came of';
COMMENT ON COLUMN credential_audit.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE OR REPLACE VIEW usage_ledger WITH (security_invoker = true) AS
    SELECT
        c.org, c.session, c.turn, c.call_id, c.stored_at, c.day, c.user_id, t.agent AS agent_name, t.conversation_id,
        t.command_id, c.provider_name, c.request_model, c.response_model, c.input_tokens, c.output_tokens,
        c.cache_read_input_tokens, c.cache_creation_input_tokens, c.cost_micro_usd, c.prices, c.key_name, c.meter,
        c.http_status, c.complete, c.duration_ms, c.cursor, c.charged_micro_usd
    FROM usage_calls AS c LEFT JOIN turns AS t USING (org, session, turn);
COMMENT ON COLUMN usage_ledger.charged_micro_usd IS 'what the key''s budget was charged, where that is not the cost: an estimate of what was not told';

-- A turn of which only what came later could be read is no work that is to be done.
CREATE OR REPLACE VIEW session_states WITH (security_invoker = true) AS
    SELECT
        s.org, s.session, s.incarnation, s.phase, s.pinned, w.live_execs, w.unfinished_turns,
        CASE WHEN s.phase IN ('requested', 'provisioning', 'resuming') THEN 'Starting'
             WHEN s.phase = 'ready' THEN
                 CASE WHEN w.live_execs + w.unfinished_turns > 0 THEN 'Working' WHEN s.pinned THEN 'Always-on' ELSE 'Ready' END
             WHEN s.phase IN ('degraded', 'failed') THEN 'Recovering'
             WHEN s.phase IN ('stopping', 'stopped') THEN 'Sleeping' END AS state,
        s.owner_type, s.owner_id, s.stage_began_at AS since, s.expires_at
    FROM sessions AS s
        CROSS JOIN LATERAL (
            SELECT
                (SELECT count(*) FROM execs AS x
                 WHERE x.org = s.org AND x.session = s.session AND x.phase IN ('none', 'accepted', 'running')) AS live_execs,
                (SELECT count(*) FROM turns AS t
                 WHERE t.org = s.org AND t.session = s.session AND t.phase IN ('requested', 'running')) AS unfinished_turns
        ) AS w;
