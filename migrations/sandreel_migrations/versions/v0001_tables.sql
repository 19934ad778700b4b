-- The tables of the views, as of the first release. Frozen: a later change is a later file. Names have no schema: the
-- search path says it (see script.py).
CREATE TABLE sessions (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    phase TEXT NOT NULL,
    profile TEXT,
    image TEXT,
    owner_type TEXT,
    owner_id TEXT,
    requested_by TEXT,
    env_names TEXT[],
    grants TEXT[],
    ttl_s DOUBLE PRECISION,
    idle_timeout_s DOUBLE PRECISION,
    pinned BOOLEAN NOT NULL,
    boot INTEGER NOT NULL,
    boot_id TEXT,
    backend TEXT,
    ref TEXT,
    node TEXT,
    fence TEXT,
    runnerd_version TEXT,
    contract_version INTEGER,
    requested_at TIMESTAMP WITH TIME ZONE,
    ready_at TIMESTAMP WITH TIME ZONE,
    changed_at TIMESTAMP WITH TIME ZONE,
    expires_at TIMESTAMP WITH TIME ZONE,
    destroyed_at TIMESTAMP WITH TIME ZONE,
    stop_reason TEXT,
    degraded_reason TEXT,
    failure_stage TEXT,
    failure_code TEXT,
    failure_message TEXT,
    refused_commands BIGINT NOT NULL,
    unreadable_events BIGINT NOT NULL,
    first_cursor TEXT NOT NULL,
    last_cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, incarnation)
);
CREATE INDEX sessions_by_owner ON sessions (org, owner_type, owner_id);
COMMENT ON TABLE sessions IS 'One row per organisation, session and incarnation: what the log says about it now.';
COMMENT ON COLUMN sessions.org IS 'organisation that it belongs to';
COMMENT ON COLUMN sessions.session IS 'id of the session, unique within the organisation';
COMMENT ON COLUMN sessions.incarnation IS 'which life of this id, from 1: a destroyed id may be created again';
COMMENT ON COLUMN sessions.phase IS 'requested, provisioning, ready, degraded, stopping, stopped, resuming, destroying, destroyed or failed';
COMMENT ON COLUMN sessions.profile IS 'default or agent: its user, limits and fences';
COMMENT ON COLUMN sessions.image IS 'container image, if the request named one';
COMMENT ON COLUMN sessions.owner_type IS 'what kind of thing owns it: user, thread, workflow, …';
COMMENT ON COLUMN sessions.owner_id IS 'the owner''s id within the organisation';
COMMENT ON COLUMN sessions.requested_by IS 'actor of the command that asked for it';
COMMENT ON COLUMN sessions.env_names IS 'names of the variables that it was created with';
COMMENT ON COLUMN sessions.grants IS 'credentials that it was created with, by slug';
COMMENT ON COLUMN sessions.ttl_s IS 'seconds that one boot may live';
COMMENT ON COLUMN sessions.idle_timeout_s IS 'seconds without an exec after which it is stopped';
COMMENT ON COLUMN sessions.pinned IS 'whether it is spared from both';
COMMENT ON COLUMN sessions.boot IS 'how many times it was booted';
COMMENT ON COLUMN sessions.boot_id IS 'the boot that is, or was last, alive';
COMMENT ON COLUMN sessions.backend IS 'docker, kubernetes or process';
COMMENT ON COLUMN sessions.ref IS 'the backend''s own name for it';
COMMENT ON COLUMN sessions.node IS 'machine that it runs on';
COMMENT ON COLUMN sessions.fence IS 'how it is kept from the network: none, proven or unfenced';
COMMENT ON COLUMN sessions.runnerd_version IS 'version of the recorder inside';
COMMENT ON COLUMN sessions.contract_version IS 'version of the messages that the recorder speaks';
COMMENT ON COLUMN sessions.requested_at IS 'when it was asked for';
COMMENT ON COLUMN sessions.ready_at IS 'when its first boot took commands';
COMMENT ON COLUMN sessions.changed_at IS 'when its phase changed last';
COMMENT ON COLUMN sessions.expires_at IS 'when it will be stopped, unless it is pinned or busy';
COMMENT ON COLUMN sessions.destroyed_at IS 'when its workspace was deleted';
COMMENT ON COLUMN sessions.stop_reason IS 'why it was stopped last: asked, idle, ttl, oom, killed, engine, node, exited';
COMMENT ON COLUMN sessions.degraded_reason IS 'why it is degraded';
COMMENT ON COLUMN sessions.failure_stage IS 'what failed last: provision, boot, resume, stop, destroy';
COMMENT ON COLUMN sessions.failure_code IS 'one constant word for the failure';
COMMENT ON COLUMN sessions.failure_message IS 'one sentence about it';
COMMENT ON COLUMN sessions.refused_commands IS 'commands about it that got no for an answer';
COMMENT ON COLUMN sessions.unreadable_events IS 'events that this version of the views could not read';
COMMENT ON COLUMN sessions.first_cursor IS 'where this life of the session begins in the log: epoch:partition:sequence';
COMMENT ON COLUMN sessions.last_cursor IS 'its newest event that these views have seen: epoch:partition:sequence';

CREATE TABLE execs (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    exec TEXT NOT NULL,
    phase TEXT NOT NULL,
    boot_id TEXT,
    command_id TEXT,
    correlation_id TEXT,
    requested_by TEXT,
    argv TEXT[],
    shell TEXT,
    cwd TEXT,
    pid INTEGER,
    tty BOOLEAN,
    env_names TEXT[],
    timeout_s DOUBLE PRECISION,
    no_output_timeout_s DOUBLE PRECISION,
    orphan_timeout_s DOUBLE PRECISION,
    accepted_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    exit_code INTEGER,
    signal TEXT,
    reason TEXT,
    message TEXT,
    lost_cause TEXT,
    oom BOOLEAN,
    duration_ms BIGINT,
    cpu_ms BIGINT,
    max_rss_bytes BIGINT,
    leftovers BIGINT,
    masked BOOLEAN,
    stdout_lines BIGINT NOT NULL,
    stdout_bytes BIGINT NOT NULL,
    stdout_next_line BIGINT NOT NULL,
    stdout_open BOOLEAN NOT NULL,
    stdout_limit_bytes BIGINT,
    stderr_lines BIGINT NOT NULL,
    stderr_bytes BIGINT NOT NULL,
    stderr_next_line BIGINT NOT NULL,
    stderr_open BOOLEAN NOT NULL,
    stderr_limit_bytes BIGINT,
    stdin_bytes BIGINT NOT NULL,
    gaps BIGINT NOT NULL,
    missing_events BIGINT NOT NULL,
    throttled BIGINT NOT NULL,
    unreadable_events BIGINT NOT NULL,
    last_n BIGINT NOT NULL,
    first_cursor TEXT NOT NULL,
    last_cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, exec)
);
CREATE INDEX execs_by_id ON execs (exec);
CREATE INDEX execs_by_start ON execs (org, accepted_at);
COMMENT ON TABLE execs IS 'One row per exec: one program run inside a session, and how it ended.';
COMMENT ON COLUMN execs.org IS 'organisation';
COMMENT ON COLUMN execs.session IS 'session that it ran in';
COMMENT ON COLUMN execs.exec IS 'id of the exec, used once per session';
COMMENT ON COLUMN execs.phase IS 'accepted, running, exited or lost; none: its acceptance could not be read';
COMMENT ON COLUMN execs.boot_id IS 'boot of the session that accepted it';
COMMENT ON COLUMN execs.command_id IS 'id of the exec.start that asked for it';
COMMENT ON COLUMN execs.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN execs.requested_by IS 'actor of that command';
COMMENT ON COLUMN execs.argv IS 'program and arguments; null when it is a shell text';
COMMENT ON COLUMN execs.shell IS 'text given to bash -lc; null when it is argv';
COMMENT ON COLUMN execs.cwd IS 'directory that it started in';
COMMENT ON COLUMN execs.pid IS 'process id inside the session';
COMMENT ON COLUMN execs.tty IS 'whether it had a terminal (then all output is stdout)';
COMMENT ON COLUMN execs.env_names IS 'names of its variables';
COMMENT ON COLUMN execs.timeout_s IS 'wall-clock limit in seconds; null: none';
COMMENT ON COLUMN execs.no_output_timeout_s IS 'limit without output in seconds; null: none';
COMMENT ON COLUMN execs.orphan_timeout_s IS 'limit without a keepalive in seconds; null: none';
COMMENT ON COLUMN execs.accepted_at IS 'when runnerd took it';
COMMENT ON COLUMN execs.started_at IS 'when its process existed';
COMMENT ON COLUMN execs.ended_at IS 'when its end was recorded';
COMMENT ON COLUMN execs.exit_code IS 'as the kernel told it; null while it runs, on a signal, and when it was lost';
COMMENT ON COLUMN execs.signal IS 'signal that ended it';
COMMENT ON COLUMN execs.reason IS 'exited, cancelled, stopped, deadline, no_output, orphaned, spawn_failed, or lost';
COMMENT ON COLUMN execs.message IS 'one sentence, where there is more to say';
COMMENT ON COLUMN execs.lost_cause IS 'why its end is not known: oom, container_exit, runnerd_died, node_gone';
COMMENT ON COLUMN execs.oom IS 'whether the kernel ended it for memory';
COMMENT ON COLUMN execs.duration_ms IS 'milliseconds from start to end, by runnerd''s monotonic clock';
COMMENT ON COLUMN execs.cpu_ms IS 'milliseconds of processor time';
COMMENT ON COLUMN execs.max_rss_bytes IS 'largest resident memory';
COMMENT ON COLUMN execs.leftovers IS 'processes that outlived it';
COMMENT ON COLUMN execs.masked IS 'whether a secret was masked in its output';
COMMENT ON COLUMN execs.stdout_lines IS 'newlines on stdout so far';
COMMENT ON COLUMN execs.stdout_bytes IS 'bytes on stdout so far';
COMMENT ON COLUMN execs.stdout_next_line IS 'number of the line that the next byte on stdout belongs to';
COMMENT ON COLUMN execs.stdout_open IS 'whether that line has begun already (no newline yet)';
COMMENT ON COLUMN execs.stdout_limit_bytes IS 'stdout was cut at exactly so many bytes; null: never';
COMMENT ON COLUMN execs.stderr_lines IS 'newlines on stderr so far';
COMMENT ON COLUMN execs.stderr_bytes IS 'bytes on stderr so far';
COMMENT ON COLUMN execs.stderr_next_line IS 'number of the line that the next byte on stderr belongs to';
COMMENT ON COLUMN execs.stderr_open IS 'whether that line has begun already (no newline yet)';
COMMENT ON COLUMN execs.stderr_limit_bytes IS 'stderr was cut at exactly so many bytes; null: never';
COMMENT ON COLUMN execs.stdin_bytes IS 'bytes written to its input';
COMMENT ON COLUMN execs.gaps IS 'holes in its record, each explained by an exec.gap';
COMMENT ON COLUMN execs.missing_events IS 'events in these holes, and those that were archived before these views read them';
COMMENT ON COLUMN execs.throttled IS 'how often its output was made to wait';
COMMENT ON COLUMN execs.unreadable_events IS 'events that this version of the views could not read';
COMMENT ON COLUMN execs.last_n IS 'ordinal of its newest event';
COMMENT ON COLUMN execs.first_cursor IS 'where the exec begins in the log: epoch:partition:sequence';
COMMENT ON COLUMN execs.last_cursor IS 'its newest event that these views have seen: epoch:partition:sequence';

CREATE TABLE exec_blocks (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    exec TEXT NOT NULL,
    stream TEXT NOT NULL,
    n BIGINT NOT NULL,
    line BIGINT NOT NULL,
    lines BIGINT NOT NULL,
    starts_line BOOLEAN NOT NULL,
    eol BOOLEAN NOT NULL,
    is_text BOOLEAN NOT NULL,
    data BYTEA NOT NULL,
    partition INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL
)
 PARTITION BY RANGE (at);
CREATE INDEX exec_blocks_by_exec ON exec_blocks (exec, session, org, stream, line);
COMMENT ON TABLE exec_blocks IS 'Output as it was recorded: one row per block. reel.exec_lines serves it by line.';
COMMENT ON COLUMN exec_blocks.org IS 'organisation';
COMMENT ON COLUMN exec_blocks.session IS 'session';
COMMENT ON COLUMN exec_blocks.exec IS 'exec';
COMMENT ON COLUMN exec_blocks.stream IS 'stdout or stderr';
COMMENT ON COLUMN exec_blocks.n IS 'ordinal of the event in its exec: blocks in the order in which they were read';
COMMENT ON COLUMN exec_blocks.line IS 'number, from 1 per stream, of the line that holds the first byte';
COMMENT ON COLUMN exec_blocks.lines IS 'newlines in the block';
COMMENT ON COLUMN exec_blocks.starts_line IS 'whether the first byte is also the first byte of its line that is known';
COMMENT ON COLUMN exec_blocks.eol IS 'whether the block ends with a newline';
COMMENT ON COLUMN exec_blocks.is_text IS 'whether the block is UTF-8 without NUL';
COMMENT ON COLUMN exec_blocks.data IS 'the bytes, exactly';
COMMENT ON COLUMN exec_blocks.partition IS 'partition of the log';
COMMENT ON COLUMN exec_blocks.sequence IS 'place in that partition';
COMMENT ON COLUMN exec_blocks.at IS 'when the stream server stored it; the table is partitioned by day of it';

CREATE TABLE cursors (
    stream TEXT NOT NULL,
    partition INTEGER,
    epoch TEXT NOT NULL,
    build TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE,
    stream_sequence BIGINT NOT NULL,
    stream_at TIMESTAMP WITH TIME ZONE,
    looked_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (stream)
);
COMMENT ON TABLE cursors IS 'How far each stream has been read; written in one transaction with what was read.';
COMMENT ON COLUMN cursors.stream IS 'stream that was read: REEL-0, … are the partitions of the log';
COMMENT ON COLUMN cursors.partition IS 'partition of the log; null for a stream that is none';
COMMENT ON COLUMN cursors.epoch IS 'of the stream that was read; empty for one without';
COMMENT ON COLUMN cursors.build IS 'token of these rows: another one after a rebuild, so that no writer goes on from old ones';
COMMENT ON COLUMN cursors.sequence IS 'everything up to here is in these views, nothing behind it is';
COMMENT ON COLUMN cursors.at IS 'when the stream server stored that event';
COMMENT ON COLUMN cursors.stream_sequence IS 'last sequence of the stream when the projector looked';
COMMENT ON COLUMN cursors.stream_at IS 'when the stream server stored that one';
COMMENT ON COLUMN cursors.looked_at IS 'when the projector looked, by Postgres'' clock';

CREATE TABLE quarantine (
    stream TEXT NOT NULL,
    epoch TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    partition INTEGER,
    cursor TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    body BYTEA NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (stream, epoch, sequence)
);
COMMENT ON TABLE quarantine IS 'Events that no view could digest. The stream was read on without them.';
COMMENT ON COLUMN quarantine.stream IS 'stream that it stands in';
COMMENT ON COLUMN quarantine.epoch IS 'of that stream; empty for one without';
COMMENT ON COLUMN quarantine.sequence IS 'place in that stream';
COMMENT ON COLUMN quarantine.partition IS 'partition of the log; null for a stream that is none';
COMMENT ON COLUMN quarantine.cursor IS 'the same place as epoch:partition:sequence';
COMMENT ON COLUMN quarantine.subject IS 'subject that it is stored on';
COMMENT ON COLUMN quarantine.reason IS 'what was wrong with it';
COMMENT ON COLUMN quarantine.body IS 'the message as it is stored, at most its first MiB';
COMMENT ON COLUMN quarantine.at IS 'when the stream server stored it';
