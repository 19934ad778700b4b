-- The views that analysts read, as of the first release. Frozen: a later change is a later file.

-- Bytes as text, as Python's bytes.decode(errors="replace") makes it, and NUL, which text cannot hold, as U+FFFD too.
-- The pattern reads hexadecimal digits two by two: runs of whole code points (RFC 3629, table 3-7 of the Unicode
-- standard), beginnings of code points that are cut off, and any other byte.
CREATE FUNCTION text_of(data bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(string_agg(
        CASE WHEN m.found[1] IS NOT NULL THEN convert_from(decode(m.found[1], 'hex'), 'UTF8') ELSE U&'\FFFD' END,
        '' ORDER BY m.i), '')
    FROM regexp_matches(encode(data, 'hex'),
        '((?:0[1-9a-f]|[1-7][0-9a-f]'
        '|(?:c[2-9a-f]|d[0-9a-f])[89ab][0-9a-f]'
        '|e0[ab][0-9a-f][89ab][0-9a-f]|(?:e[1-9a-c]|e[ef])(?:[89ab][0-9a-f]){2}|ed[89][0-9a-f][89ab][0-9a-f]'
        '|f0[9ab][0-9a-f](?:[89ab][0-9a-f]){2}|f[1-3](?:[89ab][0-9a-f]){3}|f48[0-9a-f](?:[89ab][0-9a-f]){2})+)'
        '|e0[ab][0-9a-f]|(?:e[1-9a-c]|e[ef])[89ab][0-9a-f]|ed[89][0-9a-f]'
        '|f0[9ab][0-9a-f](?:[89ab][0-9a-f])?|f[1-3][89ab][0-9a-f](?:[89ab][0-9a-f])?|f48[0-9a-f](?:[89ab][0-9a-f])?'
        '|..', 'g') WITH ORDINALITY AS m(found, i)
$$;
COMMENT ON FUNCTION text_of(bytea) IS
    'Bytes as text; whatever is not UTF-8, and NUL, becomes U+FFFD.';

-- A block's pieces are what stands between its newlines. One that has its line's first and last byte is a line;
-- the others are joined by number, in the order in which they were read.
CREATE VIEW exec_lines AS
    SELECT
        p.org, p.session, p.exec, p.stream, p.line,
        CASE WHEN bool_and(p.is_text) THEN string_agg(p.piece, '' ORDER BY p.n)
             ELSE text_of(string_agg(CASE WHEN p.is_text THEN convert_to(p.piece, 'UTF8')
                                               ELSE decode(p.piece, 'escape') END, ''::bytea ORDER BY p.n)) END AS text,
        string_agg(CASE WHEN p.is_text THEN convert_to(p.piece, 'UTF8')
                        ELSE decode(p.piece, 'escape') END, ''::bytea ORDER BY p.n) AS bytes,
        bool_or(p.ends) AS eol,
        min(p.at) AS at
    FROM (
        SELECT b.org, b.session, b.exec, b.stream, b.line + s.i - 1 AS line, b.n, b.is_text, s.piece,
               s.i <= b.lines AS ends, b.at
        FROM exec_blocks AS b,
             -- `escape` leaves newlines as they are, and holds any byte as text.
             string_to_table(CASE WHEN b.is_text THEN convert_from(b.data, 'UTF8') ELSE encode(b.data, 'escape') END,
                             E'\n') WITH ORDINALITY AS s(piece, i)
        WHERE s.i <= b.lines OR NOT b.eol
    ) AS p
    GROUP BY p.org, p.session, p.exec, p.stream, p.line;
COMMENT ON VIEW exec_lines IS
    'Every line of output by its number. Filter by exec; for a few lines of a long exec use reel.lines_of.';
COMMENT ON COLUMN exec_lines.org IS 'organisation';
COMMENT ON COLUMN exec_lines.session IS 'session';
COMMENT ON COLUMN exec_lines.exec IS 'exec';
COMMENT ON COLUMN exec_lines.stream IS 'stdout or stderr';
COMMENT ON COLUMN exec_lines.line IS 'number of the line, from 1 per stream';
COMMENT ON COLUMN exec_lines.text IS 'the line without its newline; bytes that are not UTF-8, and NUL, as U+FFFD';
COMMENT ON COLUMN exec_lines.bytes IS 'the line without its newline, exactly';
COMMENT ON COLUMN exec_lines.eol IS 'whether the line has its newline; false only for one that is not finished';
COMMENT ON COLUMN exec_lines.at IS 'when the stream server stored the first of its bytes';

CREATE FUNCTION lines_of(
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
          AND (s.i <= b.lines OR NOT b.eol)
    ) AS p
    WHERE p.line BETWEEN $4 AND $5
    GROUP BY p.line ORDER BY p.line;
END;
COMMENT ON FUNCTION lines_of(text, text, text, bigint, bigint, text) IS
    'Lines from_line to_line (both included) of one stream of an exec, in order; columns as in reel.exec_lines.';

CREATE VIEW projection_lag AS
    SELECT
        c.stream, c.partition, c.epoch, c.sequence, c.stream_sequence,
        greatest(c.stream_sequence - c.sequence, 0) AS lag_events,
        CASE WHEN c.stream_sequence > c.sequence
             THEN greatest(extract(epoch FROM c.stream_at - coalesce(c.at, c.stream_at)), 0)::double precision
             ELSE 0 END AS lag_s,
        c.at, c.looked_at,
        extract(epoch FROM clock_timestamp() - c.looked_at)::double precision AS looked_s_ago,
        (SELECT count(*) FROM quarantine AS q WHERE q.stream = c.stream) AS quarantined_events
    FROM cursors AS c;
COMMENT ON VIEW projection_lag IS
    'How far the views of each stream are behind it. A projector that is away shows in looked_s_ago.';
COMMENT ON COLUMN projection_lag.stream IS 'stream that is read: REEL-0, … are the partitions of the log';
COMMENT ON COLUMN projection_lag.partition IS 'partition of the log; null for a stream that is none';
COMMENT ON COLUMN projection_lag.epoch IS 'of the stream; empty for one without';
COMMENT ON COLUMN projection_lag.sequence IS 'everything up to here is in the views';
COMMENT ON COLUMN projection_lag.stream_sequence IS 'last sequence of the stream when the projector looked';
COMMENT ON COLUMN projection_lag.lag_events IS 'events between the two, at most: purged ones are counted';
COMMENT ON COLUMN projection_lag.lag_s IS
    'seconds between the newest event in the views and the newest in the stream, by the stream server''s timestamps';
COMMENT ON COLUMN projection_lag.at IS 'when the stream server stored the newest event in the views';
COMMENT ON COLUMN projection_lag.looked_at IS 'when the projector looked at the stream';
COMMENT ON COLUMN projection_lag.looked_s_ago IS 'seconds since then; more than 15: the projector is away';
COMMENT ON COLUMN projection_lag.quarantined_events IS 'events of the stream that no view could digest';
