-- What analysts ask of commands, sessions and the whole log, as of the second schema. Frozen: a later change is a later
-- file. Every view runs with the rights of who asks (security_invoker), so that row-level security holds behind it.

CREATE VIEW commands WITH (security_invoker = true) AS
    SELECT
        l.org, l.session, l.command_id, l.type, l.role, l.aggregate, l.aggregate_id, l.actor, l.source, l.correlation_id,
        l.sent_at, l.stored_at, l.deadline,
        coalesce(o.outcome, 'pending') AS outcome, o.event_type, o.code, o.message, o.stored_at AS outcome_at,
        (extract(epoch FROM o.stored_at - l.stored_at) * 1000)::double precision AS duration_ms,
        o.cursor, l.problem, l.data
    FROM command_log AS l LEFT JOIN command_outcomes AS o USING (org, session, command_id)
    UNION ALL
    SELECT
        o.org, o.session, o.command_id, NULL, NULL, o.aggregate, o.aggregate_id, o.actor, NULL, o.correlation_id,
        -- The first 48 bits of a UUIDv7 are the milliseconds since 1970 at which its sender made it (RFC 9562).
        CASE WHEN o.command_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
            to_timestamp(('x0000' || substr(o.command_id, 1, 8) || substr(o.command_id, 10, 4))::bit(64)::bigint / 1000.0)
        END,
        NULL, NULL, o.outcome, o.event_type, o.code, o.message, o.stored_at, NULL, o.cursor, NULL, NULL
    FROM command_outcomes AS o
    WHERE NOT EXISTS (
        SELECT FROM command_log AS l WHERE l.org = o.org AND l.session = o.session AND l.command_id = o.command_id
    );
COMMENT ON VIEW commands IS
    'Every command with its one outcome: the first event that names it as its cause. Of one that the stream of commands had forgotten before these views read it (after 7 days) there is only what its outcome knows: type, role, source, stored_at and duration_ms are null then.';
COMMENT ON COLUMN commands.org IS 'organisation';
COMMENT ON COLUMN commands.session IS 'session that it was sent to';
COMMENT ON COLUMN commands.command_id IS 'its id, a UUIDv7; events that it caused name it';
COMMENT ON COLUMN commands.type IS 'what was asked: session.create, exec.start, …';
COMMENT ON COLUMN commands.role IS 'who was asked: spawner, runnerd, broker or bridge';
COMMENT ON COLUMN commands.aggregate IS 'what it is about: session, exec, workspace, turn, credential';
COMMENT ON COLUMN commands.aggregate_id IS 'id of that exec or turn; null for what has none';
COMMENT ON COLUMN commands.actor IS 'who asked, as the sender says';
COMMENT ON COLUMN commands.source IS 'from where it was sent';
COMMENT ON COLUMN commands.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN commands.sent_at IS 'when it was sent, by the sender''s clock';
COMMENT ON COLUMN commands.stored_at IS 'when the stream server stored it';
COMMENT ON COLUMN commands.deadline IS 'past it, it is refused as EXPIRED';
COMMENT ON COLUMN commands.outcome IS 'done, settled (it was so already), refused, lost (its exec was never accepted, or its end is not known), or pending';
COMMENT ON COLUMN commands.event_type IS 'type of the event that is its outcome: session.requested, exec.accepted, command.refused, …';
COMMENT ON COLUMN commands.code IS 'why it was refused, one constant word';
COMMENT ON COLUMN commands.message IS 'why, one sentence';
COMMENT ON COLUMN commands.outcome_at IS 'when the stream server stored the outcome';
COMMENT ON COLUMN commands.duration_ms IS 'milliseconds from stored_at to outcome_at: both are the stream server''s times';
COMMENT ON COLUMN commands.cursor IS 'where the outcome stands in the log: epoch:partition:sequence';
COMMENT ON COLUMN commands.problem IS 'why it was not in order; null where it was';
COMMENT ON COLUMN commands.data IS 'what it said, as JSON; of variables only the names, of input only its length; long texts are cut and say so';

CREATE VIEW session_timeline WITH (security_invoker = true) AS
    SELECT
        g.org, g.session, g.incarnation, g.number, g.boot, g.stage, g.detail, g.began_at, g.ended_at, g.duration_ms,
        g.next_stage, g.began_cursor, g.ended_cursor
    FROM session_stages AS g
    UNION ALL
    SELECT
        s.org, s.session, s.incarnation, s.stage, s.boot, s.phase,
        CASE WHEN s.phase IN ('stopping', 'stopped') THEN s.stop_reason
             WHEN s.phase = 'degraded' THEN s.degraded_reason
             WHEN s.phase = 'failed' THEN s.failure_stage || ': ' || s.failure_code || ': ' || s.failure_message END,
        s.stage_began_at, NULL, NULL, NULL, s.stage_cursor, NULL
    FROM sessions AS s;
COMMENT ON VIEW session_timeline IS
    'One row per stage of every life of a session, in order of number: requested, provisioning, ready, stopping, stopped, … Times are the stream server''s. A create is the stages requested and provisioning of boot 1.';
COMMENT ON COLUMN session_timeline.org IS 'organisation';
COMMENT ON COLUMN session_timeline.session IS 'session';
COMMENT ON COLUMN session_timeline.incarnation IS 'which life of this id';
COMMENT ON COLUMN session_timeline.number IS 'which stage of that life, from 1';
COMMENT ON COLUMN session_timeline.boot IS 'which boot of that life, from 1';
COMMENT ON COLUMN session_timeline.stage IS 'requested (until the backend has it), provisioning (until it takes commands), ready, degraded, stopping, stopped, resuming, destroying, destroyed or failed';
COMMENT ON COLUMN session_timeline.detail IS 'why it stopped or degraded; of a failure its stage, code and message';
COMMENT ON COLUMN session_timeline.began_at IS 'when the stage began';
COMMENT ON COLUMN session_timeline.ended_at IS 'when it ended; null: the session is in it now';
COMMENT ON COLUMN session_timeline.duration_ms IS 'milliseconds that it took; null: the session is in it now';
COMMENT ON COLUMN session_timeline.next_stage IS 'what came after it; null: the session is in it now';
COMMENT ON COLUMN session_timeline.began_cursor IS 'event that began it: epoch:partition:sequence';
COMMENT ON COLUMN session_timeline.ended_cursor IS 'event that ended it: epoch:partition:sequence';

CREATE VIEW audit_log WITH (security_invoker = true) AS
    SELECT
        coalesce(c.stored_at, c.sent_at, c.outcome_at) AS at, c.org, c.session, 'command' AS kind, c.type,
        c.command_id AS id, c.aggregate, c.aggregate_id, NULL::bigint AS n, c.actor, c.source, NULL AS caused_by,
        c.correlation_id, c.outcome, c.code, c.message, c.duration_ms, c.sent_at AS said_at, c.cursor, c.data
    FROM commands AS c
    UNION ALL
    SELECT
        e.stored_at, e.org, e.session, 'event', e.type, e.id, e.aggregate, e.aggregate_id, NULL, e.actor, e.source,
        e.causation_id, e.correlation_id,
        CASE e.type WHEN 'command.refused' THEN 'refused' WHEN 'command.settled' THEN 'settled' END,
        e.data ->> 'code', coalesce(e.problem, e.data ->> 'message'), NULL, e.said_at, e.cursor, e.data
    FROM event_log AS e
    UNION ALL
    SELECT
        e.stored_at, e.org, e.session, 'event', e.type, e.id, 'exec', e.exec, e.n, e.actor, e.source,
        e.causation_id, e.correlation_id, NULL, NULL, coalesce(e.problem, e.data ->> 'message'),
        CASE WHEN e.type = 'exec.exited' AND e.problem IS NULL THEN (e.data ->> 'duration_ms')::numeric::double precision END,
        e.said_at, e.cursor, e.data
    FROM exec_events AS e
    UNION ALL
    SELECT
        b.at, b.org, b.session, 'event', 'exec.output', NULL, 'exec', b.exec, b.n, x.requested_by, NULL,
        x.command_id, x.correlation_id, NULL, NULL, NULL, NULL, NULL,
        c.epoch || ':' || b.partition || ':' || b.sequence,
        jsonb_build_object('stream', b.stream, 'line', b.line, 'count', b.lines, 'bytes', length(b.data), 'eol', b.eol)
    FROM exec_blocks AS b
        LEFT JOIN execs AS x USING (org, session, exec)
        LEFT JOIN cursors AS c ON c.stream = 'REEL-' || b.partition;
COMMENT ON VIEW audit_log IS
    'Every command and every event, of whatever type: who, what, when, caused by what, with which outcome. Order by at. Output is here block by block, without its bytes: reel.exec_lines has them.';
COMMENT ON COLUMN audit_log.at IS 'when the stream server stored it; of a command that these views never read, when it was sent';
COMMENT ON COLUMN audit_log.org IS 'organisation';
COMMENT ON COLUMN audit_log.session IS 'session';
COMMENT ON COLUMN audit_log.kind IS 'command or event';
COMMENT ON COLUMN audit_log.type IS 'what was asked, or what happened; null: a command of which only the outcome is known';
COMMENT ON COLUMN audit_log.id IS 'the command''s or event''s id; null for output';
COMMENT ON COLUMN audit_log.aggregate IS 'what it is about: session, exec, workspace, turn, credential, usage, egress, command';
COMMENT ON COLUMN audit_log.aggregate_id IS 'id of that exec or turn; null for what has none';
COMMENT ON COLUMN audit_log.n IS 'ordinal of an exec''s event; null for all else';
COMMENT ON COLUMN audit_log.actor IS 'who asked, as the sender of the command says';
COMMENT ON COLUMN audit_log.source IS 'from where it was said; null for output: its exec''s other events say it';
COMMENT ON COLUMN audit_log.caused_by IS 'id of the command that it came of';
COMMENT ON COLUMN audit_log.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN audit_log.outcome IS 'of a command as in reel.commands; of an event refused or settled, where it is such an answer';
COMMENT ON COLUMN audit_log.code IS 'one constant word for a refusal or a failure';
COMMENT ON COLUMN audit_log.message IS 'one sentence about it';
COMMENT ON COLUMN audit_log.duration_ms IS 'milliseconds: of a command until its outcome, of exec.exited what the exec took';
COMMENT ON COLUMN audit_log.said_at IS 'when it was said, by the sayer''s clock; null for output';
COMMENT ON COLUMN audit_log.cursor IS 'where it stands in the log, epoch:partition:sequence; of a command where its outcome stands';
COMMENT ON COLUMN audit_log.data IS 'what it said, as JSON; of variables only the names, of input only its length; long texts are cut and say so';

-- Lines by number. The block before the one that holds from_line is found by the index, backwards: whatever lies before
-- it ends before from_line, so that an exec of a million one-line blocks is not read from its beginning.
CREATE OR REPLACE FUNCTION lines_of(
    org text, session text, exec text, from_line bigint DEFAULT 1, to_line bigint DEFAULT 9223372036854775807,
    stream text DEFAULT 'stdout'
) RETURNS TABLE (line bigint, text text, bytes bytea, eol boolean, at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000
BEGIN ATOMIC
    SELECT p.line,
        CASE WHEN bool_and(p.is_text) THEN string_agg(p.piece, '' ORDER BY p.n)
             ELSE text_of(string_agg(CASE WHEN p.is_text THEN convert_to(p.piece, 'UTF8')
                                          ELSE decode(p.piece, 'escape') END, ''::bytea ORDER BY p.n)) END,
        string_agg(CASE WHEN p.is_text THEN convert_to(p.piece, 'UTF8')
                        ELSE decode(p.piece, 'escape') END, ''::bytea ORDER BY p.n),
        bool_or(p.ends), min(p.at)
    FROM (
        SELECT b.line + s.i - 1 AS line, b.n, b.is_text, s.piece, s.i <= b.lines AS ends, b.at
        FROM exec_blocks AS b,
             string_to_table(CASE WHEN b.is_text THEN convert_from(b.data, 'UTF8') ELSE encode(b.data, 'escape') END,
                             E'\n') WITH ORDINALITY AS s(piece, i)
        WHERE b.org = $1 AND b.session = $2 AND b.exec = $3 AND b.stream = $6
          AND b.line <= $5 AND b.line + b.lines >= $4
          AND b.line >= (SELECT coalesce(max(a.line), 0) FROM exec_blocks AS a
                         WHERE a.org = $1 AND a.session = $2 AND a.exec = $3 AND a.stream = $6 AND a.line < $4)
          AND (s.i <= b.lines OR NOT b.eol) AND b.line + s.i - 1 BETWEEN $4 AND $5
    ) AS p
    GROUP BY p.line ORDER BY p.line;
END;

-- A line that lies in one block contains the word only if the block does. One that is spread over several has each of its
-- pieces at an open end of a block: those are joined first, and then looked at.
CREATE FUNCTION search(
    org text, word text, session text DEFAULT NULL, exec text DEFAULT NULL, stream text DEFAULT NULL
) RETURNS TABLE (session text, exec text, stream text, line bigint, text text, at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100
BEGIN ATOMIC
    SELECT l.session, l.exec, l.stream, l.line,
           CASE WHEN l.is_text THEN convert_from(l.bytes, 'UTF8') ELSE text_of(l.bytes) END, l.at
    FROM (
        SELECT p.session, p.exec, p.stream, p.line, bool_and(p.is_text) AS is_text, min(p.at) AS at,
               string_agg(CASE WHEN p.is_text THEN convert_to(p.piece, 'UTF8')
                               ELSE decode(p.piece, 'escape') END, ''::bytea ORDER BY p.n) AS bytes
        FROM (
            SELECT b.session, b.exec, b.stream, b.line + s.i - 1 AS line, b.n, b.is_text, s.piece, b.at
            FROM exec_blocks AS b,
                 string_to_table(CASE WHEN b.is_text THEN convert_from(b.data, 'UTF8') ELSE encode(b.data, 'escape') END,
                                 E'\n') WITH ORDINALITY AS s(piece, i)
            WHERE b.org = $1 AND ($3 IS NULL OR b.session = $3) AND ($4 IS NULL OR b.exec = $4)
              AND ($5 IS NULL OR b.stream = $5)
              AND (NOT b.eol OR NOT b.starts_line OR position(convert_to($2, 'UTF8') IN b.data) > 0)
              AND (s.i <= b.lines OR NOT b.eol)
              AND (position($2 IN s.piece) > 0 OR NOT b.is_text OR s.i > b.lines OR (s.i = 1 AND NOT b.starts_line))
        ) AS p
        GROUP BY p.session, p.exec, p.stream, p.line
    ) AS l
    WHERE position(convert_to($2, 'UTF8') IN l.bytes) > 0
    ORDER BY l.session, l.exec, l.stream, l.line;
END;
COMMENT ON FUNCTION search(text, text, text, text, text) IS
    'Lines that contain the word, exactly as it is written, in all output of an organisation or of one session, exec or stream of it. Blocks that do not contain it are not split into lines, which makes it several times faster than reel.exec_lines with LIKE.';
