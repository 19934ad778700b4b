-- The tables behind commands, stages and the audit log, as of the second schema. Frozen: a later change is a later file.

CREATE TABLE command_log (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    command_id TEXT NOT NULL,
    role TEXT NOT NULL,
    type TEXT,
    aggregate TEXT,
    aggregate_id TEXT,
    actor TEXT,
    source TEXT,
    correlation_id TEXT,
    sent_at TIMESTAMP WITH TIME ZONE,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    deadline TIMESTAMP WITH TIME ZONE,
    expected_revision TEXT,
    data JSONB,
    problem TEXT,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (org, session, command_id)
);
CREATE INDEX command_log_by_time ON command_log (org, stored_at);
COMMENT ON TABLE command_log IS 'Every command as it was sent. reel.commands shows it with what came of it.';
COMMENT ON COLUMN command_log.org IS 'organisation';
COMMENT ON COLUMN command_log.session IS 'session that it was sent to';
COMMENT ON COLUMN command_log.command_id IS 'its id, a UUIDv7; events that it caused name it';
COMMENT ON COLUMN command_log.role IS 'who is asked: spawner, runnerd, broker or bridge';
COMMENT ON COLUMN command_log.type IS 'what is asked: session.create, exec.start, …; null where it cannot be read';
COMMENT ON COLUMN command_log.aggregate IS 'what it is about: session, exec, workspace, turn, credential';
COMMENT ON COLUMN command_log.aggregate_id IS 'id of that exec or turn; null for what has none';
COMMENT ON COLUMN command_log.actor IS 'who asks, as the sender says';
COMMENT ON COLUMN command_log.source IS 'from where it was sent';
COMMENT ON COLUMN command_log.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN command_log.sent_at IS 'when it was sent, by the sender''s clock';
COMMENT ON COLUMN command_log.stored_at IS 'when the stream server stored it';
COMMENT ON COLUMN command_log.deadline IS 'past it, it is refused as EXPIRED';
COMMENT ON COLUMN command_log.expected_revision IS 'cursor of the last event that the sender had seen, where it minds';
COMMENT ON COLUMN command_log.data IS 'what it said, as JSON; of variables only the names, of input only its length; long texts are cut and say so';
COMMENT ON COLUMN command_log.problem IS 'why it is not in order; null where it is';
COMMENT ON COLUMN command_log.sequence IS 'place in the stream of commands';

CREATE TABLE command_outcomes (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    command_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    event_type TEXT NOT NULL,
    code TEXT,
    message TEXT,
    aggregate TEXT NOT NULL,
    aggregate_id TEXT,
    actor TEXT,
    correlation_id TEXT,
    source TEXT NOT NULL,
    said_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, command_id)
);
CREATE INDEX command_outcomes_by_time ON command_outcomes (org, stored_at);
COMMENT ON TABLE command_outcomes IS 'What came of each command. reel.commands shows it with the command itself.';
COMMENT ON COLUMN command_outcomes.org IS 'organisation';
COMMENT ON COLUMN command_outcomes.session IS 'session';
COMMENT ON COLUMN command_outcomes.command_id IS 'id of the command';
COMMENT ON COLUMN command_outcomes.outcome IS 'done, settled (it was so already), refused, or lost';
COMMENT ON COLUMN command_outcomes.event_type IS 'type of the event: the first that names the command as its cause';
COMMENT ON COLUMN command_outcomes.code IS 'why it was refused, one constant word';
COMMENT ON COLUMN command_outcomes.message IS 'why, one sentence';
COMMENT ON COLUMN command_outcomes.aggregate IS 'what the event is about';
COMMENT ON COLUMN command_outcomes.aggregate_id IS 'id of that exec or turn; null for what has none';
COMMENT ON COLUMN command_outcomes.actor IS 'who asked, as the event says';
COMMENT ON COLUMN command_outcomes.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN command_outcomes.source IS 'who answered';
COMMENT ON COLUMN command_outcomes.said_at IS 'when it was answered, by the clock of whoever answered';
COMMENT ON COLUMN command_outcomes.stored_at IS 'when the stream server stored the answer';
COMMENT ON COLUMN command_outcomes.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE TABLE event_log (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    aggregate TEXT NOT NULL,
    aggregate_id TEXT,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    actor TEXT,
    causation_id TEXT,
    correlation_id TEXT,
    said_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    data JSONB,
    problem TEXT,
    partition INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    cursor TEXT NOT NULL
);
CREATE INDEX event_log_by_session ON event_log (org, session, stored_at);
CREATE INDEX event_log_by_time ON event_log (org, stored_at);
COMMENT ON TABLE event_log IS 'Every event but those of execs, also of types that these views do not know. See reel.audit_log.';
COMMENT ON COLUMN event_log.org IS 'organisation';
COMMENT ON COLUMN event_log.session IS 'session';
COMMENT ON COLUMN event_log.aggregate IS 'what it is about: session, workspace, turn, credential, usage, egress, command';
COMMENT ON COLUMN event_log.aggregate_id IS 'id of the turn; null for what has none';
COMMENT ON COLUMN event_log.type IS 'what happened';
COMMENT ON COLUMN event_log.id IS 'id of the event, unique within its source';
COMMENT ON COLUMN event_log.source IS 'who says it';
COMMENT ON COLUMN event_log.actor IS 'who asked, as the command says that it came of';
COMMENT ON COLUMN event_log.causation_id IS 'id of the command that it came of';
COMMENT ON COLUMN event_log.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN event_log.said_at IS 'when it was said, by the sayer''s clock';
COMMENT ON COLUMN event_log.stored_at IS 'when the stream server stored it';
COMMENT ON COLUMN event_log.data IS 'what it said, as JSON; of variables only the names, of input only its length; long texts are cut and say so';
COMMENT ON COLUMN event_log.problem IS 'what this version of the views could not read of it; null where it could';
COMMENT ON COLUMN event_log.partition IS 'partition of the log';
COMMENT ON COLUMN event_log.sequence IS 'place in that partition';
COMMENT ON COLUMN event_log.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE TABLE exec_events (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    exec TEXT NOT NULL,
    n BIGINT NOT NULL,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    actor TEXT,
    causation_id TEXT,
    correlation_id TEXT,
    said_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    data JSONB,
    problem TEXT,
    partition INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, exec, n)
);
CREATE INDEX exec_events_by_time ON exec_events (org, stored_at);
COMMENT ON TABLE exec_events IS 'Every event of an exec but its output, which is in reel.exec_blocks. See reel.audit_log.';
COMMENT ON COLUMN exec_events.org IS 'organisation';
COMMENT ON COLUMN exec_events.session IS 'session';
COMMENT ON COLUMN exec_events.exec IS 'exec';
COMMENT ON COLUMN exec_events.n IS 'ordinal of the event in its exec; one that was sent twice is here once';
COMMENT ON COLUMN exec_events.type IS 'what happened';
COMMENT ON COLUMN exec_events.id IS 'id of the event, unique within its source';
COMMENT ON COLUMN exec_events.source IS 'who says it';
COMMENT ON COLUMN exec_events.actor IS 'who asked, as the command says that it came of';
COMMENT ON COLUMN exec_events.causation_id IS 'id of the command that it came of';
COMMENT ON COLUMN exec_events.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN exec_events.said_at IS 'when it was said, by the sayer''s clock';
COMMENT ON COLUMN exec_events.stored_at IS 'when the stream server stored it';
COMMENT ON COLUMN exec_events.data IS 'what it said, as JSON; of variables only the names, of input only its length; long texts are cut and say so';
COMMENT ON COLUMN exec_events.problem IS 'what this version of the views could not read of it; null where it could';
COMMENT ON COLUMN exec_events.partition IS 'partition of the log';
COMMENT ON COLUMN exec_events.sequence IS 'place in that partition';
COMMENT ON COLUMN exec_events.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE TABLE session_stages (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    stage TEXT NOT NULL,
    detail TEXT,
    began_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
    duration_ms BIGINT NOT NULL,
    next_stage TEXT NOT NULL,
    began_cursor TEXT NOT NULL,
    ended_cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, incarnation, number)
);
CREATE INDEX session_stages_by_time ON session_stages (org, began_at);
COMMENT ON TABLE session_stages IS 'One row per stage of a session''s life that is over. reel.session_timeline has the present ones too.';
COMMENT ON COLUMN session_stages.org IS 'organisation';
COMMENT ON COLUMN session_stages.session IS 'session';
COMMENT ON COLUMN session_stages.incarnation IS 'which life of this id';
COMMENT ON COLUMN session_stages.number IS 'which stage of that life, from 1';
COMMENT ON COLUMN session_stages.boot IS 'which boot of that life, from 1';
COMMENT ON COLUMN session_stages.stage IS 'the phase: requested, provisioning, ready, …';
COMMENT ON COLUMN session_stages.detail IS 'why it stopped or degraded; of a failure its stage, code and message';
COMMENT ON COLUMN session_stages.began_at IS 'when the stage began, by the stream server''s clock';
COMMENT ON COLUMN session_stages.ended_at IS 'when it ended, by the stream server''s clock';
COMMENT ON COLUMN session_stages.duration_ms IS 'milliseconds between the two';
COMMENT ON COLUMN session_stages.next_stage IS 'what came after it';
COMMENT ON COLUMN session_stages.began_cursor IS 'event that began it: epoch:partition:sequence';
COMMENT ON COLUMN session_stages.ended_cursor IS 'event that ended it: epoch:partition:sequence';

CREATE TABLE ops (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    turn TEXT NOT NULL,
    phase TEXT NOT NULL,
    agent TEXT,
    model TEXT,
    conversation_id TEXT,
    permission_mode TEXT,
    prompt TEXT,
    requested_by TEXT,
    command_id TEXT,
    exec TEXT,
    requested_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    status TEXT,
    error TEXT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cache_read_input_tokens BIGINT,
    cache_creation_input_tokens BIGINT,
    cost_micro_usd BIGINT,
    tool_uses BIGINT NOT NULL,
    tool_errors BIGINT NOT NULL,
    steers_queued BIGINT NOT NULL,
    steers_delivered BIGINT NOT NULL,
    checkpoint_n BIGINT,
    unreadable_events BIGINT NOT NULL,
    first_cursor TEXT NOT NULL,
    last_cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, turn)
);
CREATE INDEX ops_by_time ON ops (org, requested_at);
COMMENT ON TABLE ops IS 'One row per agent turn: who asked whom, how it ended, what it cost. Filled as far as events of turns exist.';
COMMENT ON COLUMN ops.org IS 'organisation';
COMMENT ON COLUMN ops.session IS 'session that the agent works in';
COMMENT ON COLUMN ops.turn IS 'id of the turn, used once per session';
COMMENT ON COLUMN ops.phase IS 'requested, running or finished; none: its request could not be read';
COMMENT ON COLUMN ops.agent IS 'which agent program';
COMMENT ON COLUMN ops.model IS 'which model: as asked for, else as the agent says';
COMMENT ON COLUMN ops.conversation_id IS 'conversation that the turn goes on with';
COMMENT ON COLUMN ops.permission_mode IS 'plan or execute';
COMMENT ON COLUMN ops.prompt IS 'the beginning of what was asked, at most 1024 characters; the whole is in the log';
COMMENT ON COLUMN ops.requested_by IS 'actor of the command that asked for it';
COMMENT ON COLUMN ops.command_id IS 'id of the turn.start that asked for it';
COMMENT ON COLUMN ops.exec IS 'exec that the agent ran in: see reel.execs';
COMMENT ON COLUMN ops.requested_at IS 'when it was taken';
COMMENT ON COLUMN ops.started_at IS 'when its exec was started';
COMMENT ON COLUMN ops.finished_at IS 'when its end was recorded';
COMMENT ON COLUMN ops.status IS 'success, failed, cancelled, interrupted, max_turns or plan; null until it has finished';
COMMENT ON COLUMN ops.error IS 'why it failed, one sentence';
COMMENT ON COLUMN ops.input_tokens IS 'tokens read, as the turn''s end says';
COMMENT ON COLUMN ops.output_tokens IS 'tokens written, as the turn''s end says';
COMMENT ON COLUMN ops.cache_read_input_tokens IS 'tokens read from the provider''s cache';
COMMENT ON COLUMN ops.cache_creation_input_tokens IS 'tokens put into the provider''s cache';
COMMENT ON COLUMN ops.cost_micro_usd IS 'millionths of a US dollar, an integer; null: the price is not known';
COMMENT ON COLUMN ops.tool_uses IS 'how often the agent used a tool';
COMMENT ON COLUMN ops.tool_errors IS 'how often a tool answered with an error';
COMMENT ON COLUMN ops.steers_queued IS 'messages that were sent while it ran';
COMMENT ON COLUMN ops.steers_delivered IS 'of these, how many the agent was given';
COMMENT ON COLUMN ops.checkpoint_n IS 'ordinal of its exec''s event up to which everything has been read';
COMMENT ON COLUMN ops.unreadable_events IS 'events that this version of the views could not read';
COMMENT ON COLUMN ops.first_cursor IS 'where the turn begins in the log: epoch:partition:sequence';
COMMENT ON COLUMN ops.last_cursor IS 'its newest event that these views have seen: epoch:partition:sequence';

-- Rows of before begin their stages with what is known of them; a rebuild says it exactly.
ALTER TABLE sessions ADD COLUMN stage INTEGER NOT NULL DEFAULT 1, ADD COLUMN stage_began_at TIMESTAMP WITH TIME ZONE, ADD COLUMN stage_cursor TEXT;
UPDATE sessions SET stage_began_at = coalesce(changed_at, requested_at, now()), stage_cursor = last_cursor;
ALTER TABLE sessions ALTER COLUMN stage DROP DEFAULT, ALTER COLUMN stage_began_at SET NOT NULL, ALTER COLUMN stage_cursor SET NOT NULL;
COMMENT ON COLUMN sessions.stage IS 'how many phases this life has had, the present one included';
COMMENT ON COLUMN sessions.stage_began_at IS 'when the present phase began: when the stream server stored its event';
COMMENT ON COLUMN sessions.stage_cursor IS 'event that began the present phase: epoch:partition:sequence';
