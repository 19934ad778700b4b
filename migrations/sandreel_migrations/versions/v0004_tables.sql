-- The tables of turns and of what they cost, as of the fourth schema. Frozen: a later change is a later file.

-- Agent turns: `ops` is a view over them now, which adds what the ledger says.
ALTER TABLE ops RENAME TO turns;
ALTER INDEX ops_pkey RENAME TO turns_pkey;
ALTER INDEX ops_by_time RENAME TO turns_by_time;
ALTER TABLE turns ADD COLUMN owner_type TEXT;
ALTER TABLE turns ADD COLUMN owner_id TEXT;
ALTER TABLE turns ADD COLUMN attempt INTEGER;
ALTER TABLE turns ADD COLUMN incarnation INTEGER;
ALTER TABLE turns ADD COLUMN agent_session_id TEXT;
ALTER TABLE turns ADD COLUMN key_name TEXT;
ALTER TABLE turns ADD COLUMN budget_micro_usd BIGINT;
ALTER TABLE turns ADD COLUMN interrupting_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE turns ADD COLUMN plan TEXT;
ALTER TABLE turns ADD COLUMN plan_decision TEXT;
ALTER TABLE turns ADD COLUMN next_turn TEXT;
ALTER TABLE turns ADD COLUMN steers_consumed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN agent_errors BIGINT NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN progress TEXT;
ALTER TABLE turns ADD COLUMN recent_events JSONB NOT NULL DEFAULT '[]';
ALTER TABLE turns ADD COLUMN driver TEXT;
ALTER TABLE turns ADD COLUMN heartbeat_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE turns ADD COLUMN last_event_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE turns ALTER COLUMN steers_consumed DROP DEFAULT;
ALTER TABLE turns ALTER COLUMN agent_errors DROP DEFAULT;
ALTER TABLE turns ALTER COLUMN recent_events DROP DEFAULT;
COMMENT ON TABLE turns IS 'One row per agent turn, as far as its own events say. reel.ops adds what it costs.';
COMMENT ON COLUMN turns.org IS 'organisation';
COMMENT ON COLUMN turns.session IS 'session that the agent works in';
COMMENT ON COLUMN turns.turn IS 'id of the turn, used once per session';
COMMENT ON COLUMN turns.phase IS 'requested, running or finished; none: its request could not be read';
COMMENT ON COLUMN turns.agent IS 'which agent program';
COMMENT ON COLUMN turns.model IS 'which model: as asked for, else as the agent was told, else as it says';
COMMENT ON COLUMN turns.conversation_id IS 'conversation that the turn goes on with';
COMMENT ON COLUMN turns.permission_mode IS 'plan or execute';
COMMENT ON COLUMN turns.prompt IS 'the beginning of what was asked, at most 1024 characters; reel.turn_events has the whole';
COMMENT ON COLUMN turns.requested_by IS 'actor of the command that asked for it';
COMMENT ON COLUMN turns.command_id IS 'id of the turn.start that asked for it';
COMMENT ON COLUMN turns.exec IS 'exec that the agent runs, or ran last, in: see reel.execs';
COMMENT ON COLUMN turns.requested_at IS 'when it was taken';
COMMENT ON COLUMN turns.started_at IS 'when its first exec was started';
COMMENT ON COLUMN turns.finished_at IS 'when its end was recorded';
COMMENT ON COLUMN turns.status IS 'success, failed, cancelled, interrupted, max_turns or plan; null until it has finished';
COMMENT ON COLUMN turns.error IS 'why it failed, one sentence';
COMMENT ON COLUMN turns.input_tokens IS 'tokens read, those from and to a cache among them, as the turn''s end says';
COMMENT ON COLUMN turns.output_tokens IS 'tokens written, as the turn''s end says';
COMMENT ON COLUMN turns.cache_read_input_tokens IS 'of input_tokens, those read from the provider''s cache';
COMMENT ON COLUMN turns.cache_creation_input_tokens IS 'of input_tokens, those put into the provider''s cache';
COMMENT ON COLUMN turns.cost_micro_usd IS 'millionths of a US dollar, as the turn''s end says; null: the price is not known';
COMMENT ON COLUMN turns.tool_uses IS 'how often the agent used a tool';
COMMENT ON COLUMN turns.tool_errors IS 'how often a tool answered with an error';
COMMENT ON COLUMN turns.steers_queued IS 'messages that were sent while it ran';
COMMENT ON COLUMN turns.steers_delivered IS 'how often the agent was given one';
COMMENT ON COLUMN turns.checkpoint_n IS 'ordinal of its exec''s event up to which everything has been read';
COMMENT ON COLUMN turns.unreadable_events IS 'events that this version of the views could not read';
COMMENT ON COLUMN turns.first_cursor IS 'where the turn begins in the log: epoch:partition:sequence';
COMMENT ON COLUMN turns.last_cursor IS 'its newest event that these views have seen: epoch:partition:sequence';
COMMENT ON COLUMN turns.owner_type IS 'what kind of thing it was asked for: user, thread, workflow, …';
COMMENT ON COLUMN turns.owner_id IS 'the owner''s id within the organisation';
COMMENT ON COLUMN turns.attempt IS 'how often its program was started: 2 after one that ended without a word';
COMMENT ON COLUMN turns.incarnation IS 'which life of the session it runs in';
COMMENT ON COLUMN turns.agent_session_id IS 'the program''s own name of the conversation, newest';
COMMENT ON COLUMN turns.key_name IS 'name of the virtual key that its model calls are paid with, newest';
COMMENT ON COLUMN turns.budget_micro_usd IS 'what it may spend, in millionths of a US dollar';
COMMENT ON COLUMN turns.interrupting_at IS 'when somebody asked for its end first';
COMMENT ON COLUMN turns.plan IS 'the plan that it ended with, at most 16,000 characters';
COMMENT ON COLUMN turns.plan_decision IS 'approved or rejected; null: nobody has decided';
COMMENT ON COLUMN turns.next_turn IS 'the turn that goes on with the approved plan';
COMMENT ON COLUMN turns.steers_consumed IS 'of the messages, how many the agent has read';
COMMENT ON COLUMN turns.agent_errors IS 'what went wrong in the agent, retries among it';
COMMENT ON COLUMN turns.progress IS 'the last 8,000 characters of what the agent itself said; of its sub-agents nothing';
COMMENT ON COLUMN turns.recent_events IS 'its newest events, at most 20, the oldest first: [{at, type, text, parent}], text at most 200 characters';
COMMENT ON COLUMN turns.driver IS 'who drives it: the bridge that said the newest event which answers no command';
COMMENT ON COLUMN turns.heartbeat_at IS 'when the stream server stored that event: its driver was alive then';
COMMENT ON COLUMN turns.last_event_at IS 'when the stream server stored the newest event of the agent itself';

CREATE TABLE turn_items (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    turn TEXT NOT NULL,
    partition INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    parent TEXT,
    pair TEXT,
    name TEXT,
    text TEXT,
    omitted_chars BIGINT NOT NULL,
    is_error BOOLEAN,
    status TEXT,
    message_ids TEXT[],
    data JSONB,
    source_n BIGINT,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    said_at TIMESTAMP WITH TIME ZONE NOT NULL,
    cursor TEXT NOT NULL
);
CREATE INDEX turn_items_by_pair ON turn_items (org, session, turn, pair, sequence);
CREATE INDEX turn_items_by_turn ON turn_items (org, session, turn, sequence);
COMMENT ON TABLE turn_items IS 'Every event of a turn but its checkpoints, one by one. reel.turn_events has a tool''s two in one row.';
COMMENT ON COLUMN turn_items.org IS 'organisation';
COMMENT ON COLUMN turn_items.session IS 'session';
COMMENT ON COLUMN turn_items.turn IS 'turn';
COMMENT ON COLUMN turn_items.partition IS 'partition of the log';
COMMENT ON COLUMN turn_items.sequence IS 'place in that partition: the order of a turn''s events';
COMMENT ON COLUMN turn_items.kind IS 'type of the event without its first word: text, tool_use, tool_result, steer_queued, …';
COMMENT ON COLUMN turn_items.parent IS 'tool use that it belongs to, whose sub-agent said or did it';
COMMENT ON COLUMN turn_items.pair IS 'id of the tool use or task that it begins or ends';
COMMENT ON COLUMN turn_items.name IS 'of the tool or the agent';
COMMENT ON COLUMN turn_items.text IS 'what it says; of a tool''s output at most 16,000 characters';
COMMENT ON COLUMN turn_items.omitted_chars IS 'characters of the output that are not in text; all of it is in the log';
COMMENT ON COLUMN turn_items.is_error IS 'whether a tool, or the agent, says that it failed';
COMMENT ON COLUMN turn_items.status IS 'how it ended; of a steered message the way that it took';
COMMENT ON COLUMN turn_items.message_ids IS 'of steered messages';
COMMENT ON COLUMN turn_items.data IS 'what a tool was given, and other details; beyond 64 KiB long texts in it are cut and say so';
COMMENT ON COLUMN turn_items.source_n IS 'ordinal of the exec''s event that it was read from';
COMMENT ON COLUMN turn_items.at IS 'when the stream server stored it';
COMMENT ON COLUMN turn_items.said_at IS 'when it was said, by the sayer''s clock';
COMMENT ON COLUMN turn_items.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE TABLE usage_calls (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    call_id TEXT NOT NULL,
    turn TEXT,
    user_id TEXT,
    provider_name TEXT NOT NULL,
    request_model TEXT,
    response_model TEXT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_input_tokens BIGINT NOT NULL,
    cache_creation_input_tokens BIGINT NOT NULL,
    cost_micro_usd BIGINT,
    prices TEXT,
    meter TEXT NOT NULL,
    key_name TEXT,
    http_status INTEGER,
    duration_ms BIGINT,
    complete BOOLEAN NOT NULL,
    correlation_id TEXT,
    day DATE NOT NULL,
    said_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    partition INTEGER NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, call_id)
);
CREATE INDEX usage_calls_by_day ON usage_calls (org, day);
CREATE INDEX usage_calls_by_turn ON usage_calls (org, session, turn);
COMMENT ON TABLE usage_calls IS 'One row per model call, as the gateway counted it. reel.usage_ledger adds the turn''s agent and command.';
COMMENT ON COLUMN usage_calls.org IS 'organisation';
COMMENT ON COLUMN usage_calls.session IS 'session that the call came from';
COMMENT ON COLUMN usage_calls.call_id IS 'id of the call; one that was told twice is here once';
COMMENT ON COLUMN usage_calls.turn IS 'turn that it was made in';
COMMENT ON COLUMN usage_calls.user_id IS 'user whose budget it counts against';
COMMENT ON COLUMN usage_calls.provider_name IS 'who answered (gen_ai.provider.name)';
COMMENT ON COLUMN usage_calls.request_model IS 'model that was asked for (gen_ai.request.model)';
COMMENT ON COLUMN usage_calls.response_model IS 'model that answered, by the provider''s name (gen_ai.response.model)';
COMMENT ON COLUMN usage_calls.input_tokens IS 'tokens that went in, those from and to a cache among them (gen_ai.usage.input_tokens)';
COMMENT ON COLUMN usage_calls.output_tokens IS 'tokens that came out, thoughts among them (gen_ai.usage.output_tokens)';
COMMENT ON COLUMN usage_calls.cache_read_input_tokens IS 'of input_tokens, those read from a cache (gen_ai.usage.cache_read.input_tokens)';
COMMENT ON COLUMN usage_calls.cache_creation_input_tokens IS 'of input_tokens, those put into a cache (gen_ai.usage.cache_creation.input_tokens)';
COMMENT ON COLUMN usage_calls.cost_micro_usd IS 'millionths of a US dollar, an integer; null: the price is not known, which is never zero';
COMMENT ON COLUMN usage_calls.prices IS 'version of the price table that the cost was worked out with';
COMMENT ON COLUMN usage_calls.meter IS 'which gateway counted it';
COMMENT ON COLUMN usage_calls.key_name IS 'virtual key that paid; its name is no secret';
COMMENT ON COLUMN usage_calls.http_status IS 'what the provider answered with';
COMMENT ON COLUMN usage_calls.duration_ms IS 'milliseconds from the request to the end of the reply';
COMMENT ON COLUMN usage_calls.complete IS 'whether the reply came to its end; what a cut one did not tell is not counted';
COMMENT ON COLUMN usage_calls.correlation_id IS 'turn or root command that it belongs to';
COMMENT ON COLUMN usage_calls.day IS 'the day in UTC of stored_at: what roll-ups go by';
COMMENT ON COLUMN usage_calls.said_at IS 'when it was counted, by the gateway''s clock';
COMMENT ON COLUMN usage_calls.stored_at IS 'when the stream server stored it';
COMMENT ON COLUMN usage_calls.partition IS 'partition of the log';
COMMENT ON COLUMN usage_calls.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE TABLE usage_reconciled (
    org TEXT NOT NULL,
    session TEXT NOT NULL,
    turn TEXT NOT NULL,
    gateway_input_tokens BIGINT NOT NULL,
    gateway_output_tokens BIGINT NOT NULL,
    gateway_cache_read_input_tokens BIGINT NOT NULL,
    gateway_cache_creation_input_tokens BIGINT NOT NULL,
    gateway_cost_micro_usd BIGINT,
    agent_input_tokens BIGINT,
    agent_output_tokens BIGINT,
    agent_cache_read_input_tokens BIGINT,
    agent_cache_creation_input_tokens BIGINT,
    agent_cost_micro_usd BIGINT,
    drift_tokens BIGINT,
    drift_micro_usd BIGINT,
    drifted BOOLEAN,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (org, session, turn)
);
CREATE INDEX usage_reconciled_by_time ON usage_reconciled (org, stored_at);
COMMENT ON TABLE usage_reconciled IS 'Of each turn what its agent said beside what the gateway counted, from usage.reconciled, the newest.';
COMMENT ON COLUMN usage_reconciled.org IS 'organisation';
COMMENT ON COLUMN usage_reconciled.session IS 'session';
COMMENT ON COLUMN usage_reconciled.turn IS 'turn';
COMMENT ON COLUMN usage_reconciled.gateway_input_tokens IS 'tokens that went in, those from and to a cache among them (gen_ai.usage.input_tokens)';
COMMENT ON COLUMN usage_reconciled.gateway_output_tokens IS 'tokens that came out, thoughts among them (gen_ai.usage.output_tokens)';
COMMENT ON COLUMN usage_reconciled.gateway_cache_read_input_tokens IS 'of input_tokens, those read from a cache (gen_ai.usage.cache_read.input_tokens)';
COMMENT ON COLUMN usage_reconciled.gateway_cache_creation_input_tokens IS 'of input_tokens, those put into a cache (gen_ai.usage.cache_creation.input_tokens)';
COMMENT ON COLUMN usage_reconciled.gateway_cost_micro_usd IS 'millionths of a US dollar, an integer; null: the price is not known, which is never zero';
COMMENT ON COLUMN usage_reconciled.agent_input_tokens IS 'tokens that went in, those from and to a cache among them (gen_ai.usage.input_tokens)';
COMMENT ON COLUMN usage_reconciled.agent_output_tokens IS 'tokens that came out, thoughts among them (gen_ai.usage.output_tokens)';
COMMENT ON COLUMN usage_reconciled.agent_cache_read_input_tokens IS 'of input_tokens, those read from a cache (gen_ai.usage.cache_read.input_tokens)';
COMMENT ON COLUMN usage_reconciled.agent_cache_creation_input_tokens IS 'of input_tokens, those put into a cache (gen_ai.usage.cache_creation.input_tokens)';
COMMENT ON COLUMN usage_reconciled.agent_cost_micro_usd IS 'millionths of a US dollar, an integer; null: the price is not known, which is never zero';
COMMENT ON COLUMN usage_reconciled.drift_tokens IS 'input and output tokens that the agent said less those that the gateway counted; null: it said none';
COMMENT ON COLUMN usage_reconciled.drift_micro_usd IS 'the same of the cost, as usage.reconciled says; null: one of the two is not known';
COMMENT ON COLUMN usage_reconciled.drifted IS 'whether they differ by more than 5 % and a cent, or, where a cost is not known, 5 % and 1,000 tokens';
COMMENT ON COLUMN usage_reconciled.stored_at IS 'when the stream server stored the newest usage.reconciled';
COMMENT ON COLUMN usage_reconciled.cursor IS 'where it stands in the log: epoch:partition:sequence';
