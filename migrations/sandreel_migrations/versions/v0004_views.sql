-- What a turn did and what it cost, as of the fourth schema. Frozen: a later change is a later file. Every view runs with
-- the rights of who asks (security_invoker), so that row-level security holds behind it.

-- One absurd count must not make everybody's sums fail. (`least` by itself passes over a null, which here is an unknown cost.)
CREATE FUNCTION bigint_of(sum numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN least($1, 9223372036854775807)::bigint;
COMMENT ON FUNCTION bigint_of(numeric) IS 'A sum in eight bytes, cut at what they hold; null stays null.';

CREATE VIEW usage_ledger WITH (security_invoker = true) AS
    SELECT
        c.org, c.session, c.turn, c.call_id, c.stored_at, c.day, c.user_id, t.agent AS agent_name, t.conversation_id,
        t.command_id, c.provider_name, c.request_model, c.response_model, c.input_tokens, c.output_tokens,
        c.cache_read_input_tokens, c.cache_creation_input_tokens, c.cost_micro_usd, c.prices, c.key_name, c.meter,
        c.http_status, c.complete, c.duration_ms, c.cursor
    FROM usage_calls AS c LEFT JOIN turns AS t USING (org, session, turn);
COMMENT ON VIEW usage_ledger IS
    'One row per model call, as the gateway counted it from the provider''s own reply; one that was told twice is here once. Columns are named after OpenTelemetry''s gen_ai attributes.';
COMMENT ON COLUMN usage_ledger.org IS 'organisation';
COMMENT ON COLUMN usage_ledger.session IS 'session that the call came from';
COMMENT ON COLUMN usage_ledger.turn IS 'turn that it was made in';
COMMENT ON COLUMN usage_ledger.call_id IS 'id of the call; one that was told twice is here once';
COMMENT ON COLUMN usage_ledger.stored_at IS 'when the stream server stored it';
COMMENT ON COLUMN usage_ledger.day IS 'the day in UTC of stored_at: what roll-ups go by';
COMMENT ON COLUMN usage_ledger.user_id IS 'user whose budget it counts against';
COMMENT ON COLUMN usage_ledger.agent_name IS 'agent program of the turn (gen_ai.agent.name)';
COMMENT ON COLUMN usage_ledger.conversation_id IS 'conversation that the turn belongs to (gen_ai.conversation.id)';
COMMENT ON COLUMN usage_ledger.command_id IS 'id of the turn.start that the turn came of: see reel.commands';
COMMENT ON COLUMN usage_ledger.provider_name IS 'who answered (gen_ai.provider.name)';
COMMENT ON COLUMN usage_ledger.request_model IS 'model that was asked for (gen_ai.request.model)';
COMMENT ON COLUMN usage_ledger.response_model IS 'model that answered, by the provider''s name (gen_ai.response.model)';
COMMENT ON COLUMN usage_ledger.input_tokens IS 'tokens that went in, those from and to a cache among them (gen_ai.usage.input_tokens)';
COMMENT ON COLUMN usage_ledger.output_tokens IS 'tokens that came out, thoughts among them (gen_ai.usage.output_tokens)';
COMMENT ON COLUMN usage_ledger.cache_read_input_tokens IS 'of input_tokens, those read from a cache (gen_ai.usage.cache_read.input_tokens)';
COMMENT ON COLUMN usage_ledger.cache_creation_input_tokens IS 'of input_tokens, those put into a cache (gen_ai.usage.cache_creation.input_tokens)';
COMMENT ON COLUMN usage_ledger.cost_micro_usd IS 'millionths of a US dollar, an integer; null: the price is not known, which is never zero';
COMMENT ON COLUMN usage_ledger.prices IS 'version of the price table that the cost was worked out with';
COMMENT ON COLUMN usage_ledger.key_name IS 'virtual key that paid; its name is no secret';
COMMENT ON COLUMN usage_ledger.meter IS 'which gateway counted it';
COMMENT ON COLUMN usage_ledger.http_status IS 'what the provider answered with';
COMMENT ON COLUMN usage_ledger.complete IS 'whether the reply came to its end; what a cut one did not tell is not counted';
COMMENT ON COLUMN usage_ledger.duration_ms IS 'milliseconds from the request to the end of the reply';
COMMENT ON COLUMN usage_ledger.cursor IS 'where it stands in the log: epoch:partition:sequence';

CREATE VIEW usage_daily WITH (security_invoker = true) AS
    SELECT
        l.org, l.day, l.user_id, l.agent_name, l.response_model, count(*) AS calls,
        count(*) FILTER (WHERE l.cost_micro_usd IS NULL) AS unpriced_calls,
        count(*) FILTER (WHERE NOT l.complete) AS incomplete_calls,
        bigint_of(sum(l.input_tokens)) AS input_tokens,
        bigint_of(sum(l.output_tokens)) AS output_tokens,
        bigint_of(sum(l.cache_read_input_tokens)) AS cache_read_input_tokens,
        bigint_of(sum(l.cache_creation_input_tokens)) AS cache_creation_input_tokens,
        bigint_of(sum(l.cost_micro_usd)) AS cost_micro_usd
    FROM usage_ledger AS l GROUP BY l.org, l.day, l.user_id, l.agent_name, l.response_model;
COMMENT ON VIEW usage_daily IS
    'What was used on each day (UTC), by organisation, user, agent and model. Filter by org and day: an index finds them.';
COMMENT ON COLUMN usage_daily.org IS 'organisation';
COMMENT ON COLUMN usage_daily.day IS 'the day, in UTC';
COMMENT ON COLUMN usage_daily.user_id IS 'user whose budget it counts against; null: the gateway knew none';
COMMENT ON COLUMN usage_daily.agent_name IS 'agent program; null: a call of no turn';
COMMENT ON COLUMN usage_daily.response_model IS 'model that answered';
COMMENT ON COLUMN usage_daily.calls IS 'model calls';
COMMENT ON COLUMN usage_daily.unpriced_calls IS 'of these, calls whose price is not known: their cost is not in the sum';
COMMENT ON COLUMN usage_daily.incomplete_calls IS 'of these, calls whose reply was cut off';
COMMENT ON COLUMN usage_daily.input_tokens IS 'tokens that went in';
COMMENT ON COLUMN usage_daily.output_tokens IS 'tokens that came out';
COMMENT ON COLUMN usage_daily.cache_read_input_tokens IS 'of input_tokens, those read from a cache';
COMMENT ON COLUMN usage_daily.cache_creation_input_tokens IS 'of input_tokens, those put into a cache';
COMMENT ON COLUMN usage_daily.cost_micro_usd IS 'sum of the costs that are known, millionths of a US dollar; null: none is known';

CREATE VIEW usage_weekly WITH (security_invoker = true) AS
    SELECT
        l.org, date_trunc('week', l.day::timestamp)::date AS week_begins, to_char(min(l.day), 'IYYY-"W"IW') AS week,
        l.user_id, l.agent_name, l.response_model, count(*) AS calls,
        count(*) FILTER (WHERE l.cost_micro_usd IS NULL) AS unpriced_calls,
        count(*) FILTER (WHERE NOT l.complete) AS incomplete_calls,
        bigint_of(sum(l.input_tokens)) AS input_tokens,
        bigint_of(sum(l.output_tokens)) AS output_tokens,
        bigint_of(sum(l.cache_read_input_tokens)) AS cache_read_input_tokens,
        bigint_of(sum(l.cache_creation_input_tokens)) AS cache_creation_input_tokens,
        bigint_of(sum(l.cost_micro_usd)) AS cost_micro_usd
    FROM usage_ledger AS l
    GROUP BY l.org, date_trunc('week', l.day::timestamp)::date, l.user_id, l.agent_name, l.response_model;
COMMENT ON VIEW usage_weekly IS
    'What was used in each week (ISO 8601: from Monday, UTC), by organisation, user, agent and model.';
COMMENT ON COLUMN usage_weekly.org IS 'organisation';
COMMENT ON COLUMN usage_weekly.week_begins IS 'its Monday';
COMMENT ON COLUMN usage_weekly.week IS 'the week as ISO 8601 writes it: 2026-W48';
COMMENT ON COLUMN usage_weekly.user_id IS 'user whose budget it counts against; null: the gateway knew none';
COMMENT ON COLUMN usage_weekly.agent_name IS 'agent program; null: a call of no turn';
COMMENT ON COLUMN usage_weekly.response_model IS 'model that answered';
COMMENT ON COLUMN usage_weekly.calls IS 'model calls';
COMMENT ON COLUMN usage_weekly.unpriced_calls IS 'of these, calls whose price is not known: their cost is not in the sum';
COMMENT ON COLUMN usage_weekly.incomplete_calls IS 'of these, calls whose reply was cut off';
COMMENT ON COLUMN usage_weekly.input_tokens IS 'tokens that went in';
COMMENT ON COLUMN usage_weekly.output_tokens IS 'tokens that came out';
COMMENT ON COLUMN usage_weekly.cache_read_input_tokens IS 'of input_tokens, those read from a cache';
COMMENT ON COLUMN usage_weekly.cache_creation_input_tokens IS 'of input_tokens, those put into a cache';
COMMENT ON COLUMN usage_weekly.cost_micro_usd IS 'sum of the costs that are known, millionths of a US dollar; null: none is known';

CREATE VIEW usage_monthly WITH (security_invoker = true) AS
    SELECT
        l.org, date_trunc('month', l.day::timestamp)::date AS month_begins, to_char(min(l.day), 'YYYY-MM') AS month,
        l.user_id, l.agent_name, l.response_model, count(*) AS calls,
        count(*) FILTER (WHERE l.cost_micro_usd IS NULL) AS unpriced_calls,
        count(*) FILTER (WHERE NOT l.complete) AS incomplete_calls,
        bigint_of(sum(l.input_tokens)) AS input_tokens,
        bigint_of(sum(l.output_tokens)) AS output_tokens,
        bigint_of(sum(l.cache_read_input_tokens)) AS cache_read_input_tokens,
        bigint_of(sum(l.cache_creation_input_tokens)) AS cache_creation_input_tokens,
        bigint_of(sum(l.cost_micro_usd)) AS cost_micro_usd
    FROM usage_ledger AS l
    GROUP BY l.org, date_trunc('month', l.day::timestamp)::date, l.user_id, l.agent_name, l.response_model;
COMMENT ON VIEW usage_monthly IS 'What was used in each month (UTC), by organisation, user, agent and model.';
COMMENT ON COLUMN usage_monthly.org IS 'organisation';
COMMENT ON COLUMN usage_monthly.month_begins IS 'its first day';
COMMENT ON COLUMN usage_monthly.month IS 'the month: 2026-11';
COMMENT ON COLUMN usage_monthly.user_id IS 'user whose budget it counts against; null: the gateway knew none';
COMMENT ON COLUMN usage_monthly.agent_name IS 'agent program; null: a call of no turn';
COMMENT ON COLUMN usage_monthly.response_model IS 'model that answered';
COMMENT ON COLUMN usage_monthly.calls IS 'model calls';
COMMENT ON COLUMN usage_monthly.unpriced_calls IS 'of these, calls whose price is not known: their cost is not in the sum';
COMMENT ON COLUMN usage_monthly.incomplete_calls IS 'of these, calls whose reply was cut off';
COMMENT ON COLUMN usage_monthly.input_tokens IS 'tokens that went in';
COMMENT ON COLUMN usage_monthly.output_tokens IS 'tokens that came out';
COMMENT ON COLUMN usage_monthly.cache_read_input_tokens IS 'of input_tokens, those read from a cache';
COMMENT ON COLUMN usage_monthly.cache_creation_input_tokens IS 'of input_tokens, those put into a cache';
COMMENT ON COLUMN usage_monthly.cost_micro_usd IS 'sum of the costs that are known, millionths of a US dollar; null: none is known';

CREATE VIEW usage_turns WITH (security_invoker = true) AS
    SELECT
        org, session, turn, t.agent AS agent_name, t.model AS request_model, t.conversation_id, t.command_id, t.phase, t.status,
        t.requested_at, t.finished_at, coalesce(c.calls, 0) AS calls, coalesce(c.unpriced_calls, 0) AS unpriced_calls,
        coalesce(c.incomplete_calls, 0) AS incomplete_calls, coalesce(c.input_tokens, 0) AS input_tokens,
        coalesce(c.output_tokens, 0) AS output_tokens, coalesce(c.cache_read_input_tokens, 0) AS cache_read_input_tokens,
        coalesce(c.cache_creation_input_tokens, 0) AS cache_creation_input_tokens, c.cost_micro_usd, t.budget_micro_usd,
        r.gateway_input_tokens, r.gateway_output_tokens, r.gateway_cost_micro_usd,
        r.agent_input_tokens, r.agent_output_tokens, r.agent_cost_micro_usd,
        r.drift_tokens, r.drift_micro_usd, r.drifted, r.stored_at AS reconciled_at
    FROM turns AS t
        FULL JOIN (
            SELECT
                u.org, u.session, u.turn, count(*) AS calls, count(*) FILTER (WHERE u.cost_micro_usd IS NULL) AS unpriced_calls,
                count(*) FILTER (WHERE NOT u.complete) AS incomplete_calls,
                bigint_of(sum(u.input_tokens)) AS input_tokens,
                bigint_of(sum(u.output_tokens)) AS output_tokens,
                bigint_of(sum(u.cache_read_input_tokens)) AS cache_read_input_tokens,
                bigint_of(sum(u.cache_creation_input_tokens)) AS cache_creation_input_tokens,
                bigint_of(sum(u.cost_micro_usd)) AS cost_micro_usd
            FROM usage_calls AS u WHERE u.turn IS NOT NULL GROUP BY u.org, u.session, u.turn
        ) AS c USING (org, session, turn)
        FULL JOIN usage_reconciled AS r USING (org, session, turn);
COMMENT ON VIEW usage_turns IS
    'What each turn used: what its calls in the ledger add up to, and what its agent said beside what the gateway counted when it was reconciled.';
COMMENT ON COLUMN usage_turns.org IS 'organisation';
COMMENT ON COLUMN usage_turns.session IS 'session';
COMMENT ON COLUMN usage_turns.turn IS 'turn';
COMMENT ON COLUMN usage_turns.agent_name IS 'agent program (gen_ai.agent.name)';
COMMENT ON COLUMN usage_turns.request_model IS 'model that the turn was asked to use (gen_ai.request.model)';
COMMENT ON COLUMN usage_turns.conversation_id IS 'conversation that the turn goes on with';
COMMENT ON COLUMN usage_turns.command_id IS 'id of the turn.start that asked for it';
COMMENT ON COLUMN usage_turns.phase IS 'requested, running or finished; null: the views have seen no event of the turn itself';
COMMENT ON COLUMN usage_turns.status IS 'success, failed, cancelled, interrupted, max_turns or plan; null until it has finished';
COMMENT ON COLUMN usage_turns.requested_at IS 'when it was taken';
COMMENT ON COLUMN usage_turns.finished_at IS 'when its end was recorded';
COMMENT ON COLUMN usage_turns.calls IS 'model calls of the turn in the ledger';
COMMENT ON COLUMN usage_turns.unpriced_calls IS 'of these, calls whose price is not known: their cost is not in the sum';
COMMENT ON COLUMN usage_turns.incomplete_calls IS 'of these, calls whose reply was cut off';
COMMENT ON COLUMN usage_turns.input_tokens IS 'tokens that went in';
COMMENT ON COLUMN usage_turns.output_tokens IS 'tokens that came out';
COMMENT ON COLUMN usage_turns.cache_read_input_tokens IS 'of input_tokens, those read from a cache';
COMMENT ON COLUMN usage_turns.cache_creation_input_tokens IS 'of input_tokens, those put into a cache';
COMMENT ON COLUMN usage_turns.cost_micro_usd IS 'sum of the costs that are known, millionths of a US dollar; null: none is known';
COMMENT ON COLUMN usage_turns.budget_micro_usd IS 'what it may spend, in millionths of a US dollar';
COMMENT ON COLUMN usage_turns.gateway_input_tokens IS 'tokens that went in, as the gateway counted them when the turn was reconciled';
COMMENT ON COLUMN usage_turns.gateway_output_tokens IS 'tokens that came out, as the gateway counted them then';
COMMENT ON COLUMN usage_turns.gateway_cost_micro_usd IS 'what it cost, as the gateway counted it then; null: a price was not known';
COMMENT ON COLUMN usage_turns.agent_input_tokens IS 'tokens that went in, as the agent says';
COMMENT ON COLUMN usage_turns.agent_output_tokens IS 'tokens that came out, as the agent says';
COMMENT ON COLUMN usage_turns.agent_cost_micro_usd IS 'what it cost, as the agent says; null: it does not';
COMMENT ON COLUMN usage_turns.drift_tokens IS 'input and output tokens that the agent said less those that the gateway counted; null: it said none';
COMMENT ON COLUMN usage_turns.drift_micro_usd IS 'the same of the cost, as usage.reconciled says; null: one of the two is not known';
COMMENT ON COLUMN usage_turns.drifted IS 'whether they differ by more than 5 % and a cent, or, where a cost is not known, 5 % and 1,000 tokens';
COMMENT ON COLUMN usage_turns.reconciled_at IS 'when the stream server stored the newest usage.reconciled; null: there is none';

CREATE VIEW ops WITH (security_invoker = true) AS
    SELECT
        t.org, t.session, t.turn, t.phase,
        CASE WHEN t.phase IN ('requested', 'running') THEN 'running'
             WHEN t.status IN ('success', 'plan') THEN 'completed'
             WHEN t.status = 'cancelled' THEN 'cancelled'
             WHEN t.status IS NOT NULL THEN 'failed' END AS state,
        t.agent, t.model, t.conversation_id, t.permission_mode, t.prompt, t.requested_by, t.owner_type, t.owner_id, t.command_id,
        t.exec, t.attempt, t.incarnation, t.agent_session_id, t.requested_at, t.started_at, t.interrupting_at, t.finished_at,
        t.driver, t.heartbeat_at, t.last_event_at, t.status, t.error, t.progress, t.recent_events, t.plan, t.plan_decision, t.next_turn,
        t.budget_micro_usd,
        (SELECT count(*) FROM usage_calls AS c WHERE c.org = t.org AND c.session = t.session AND c.turn = t.turn) AS calls,
        (SELECT count(*) FROM usage_calls AS c
         WHERE c.org = t.org AND c.session = t.session AND c.turn = t.turn AND c.cost_micro_usd IS NULL) AS unpriced_calls,
        (SELECT bigint_of(sum(c.cost_micro_usd)) FROM usage_calls AS c
         WHERE c.org = t.org AND c.session = t.session AND c.turn = t.turn) AS spent_micro_usd,
        t.input_tokens, t.output_tokens, t.cache_read_input_tokens, t.cache_creation_input_tokens, t.cost_micro_usd,
        t.tool_uses, t.tool_errors, t.agent_errors, t.steers_queued, t.steers_delivered, t.steers_consumed, t.key_name,
        t.checkpoint_n, t.unreadable_events, t.first_cursor, t.last_cursor
    FROM turns AS t;
COMMENT ON VIEW ops IS
    'One row per agent turn: who asked whom for what, how far it is, how it ended, what it costs so far.';
COMMENT ON COLUMN ops.org IS 'organisation';
COMMENT ON COLUMN ops.session IS 'session that the agent works in';
COMMENT ON COLUMN ops.turn IS 'id of the turn, used once per session';
COMMENT ON COLUMN ops.phase IS 'requested, running or finished; none: its request could not be read';
COMMENT ON COLUMN ops.state IS 'running (until its end is recorded), completed, failed or cancelled; null: its request could not be read';
COMMENT ON COLUMN ops.agent IS 'which agent program';
COMMENT ON COLUMN ops.model IS 'which model: as asked for, else as the agent was told, else as it says';
COMMENT ON COLUMN ops.conversation_id IS 'conversation that the turn goes on with';
COMMENT ON COLUMN ops.permission_mode IS 'plan or execute';
COMMENT ON COLUMN ops.prompt IS 'the beginning of what was asked, at most 1024 characters; reel.turn_events has the whole';
COMMENT ON COLUMN ops.requested_by IS 'actor of the command that asked for it';
COMMENT ON COLUMN ops.owner_type IS 'what kind of thing it was asked for: user, thread, workflow, …';
COMMENT ON COLUMN ops.owner_id IS 'the owner''s id within the organisation';
COMMENT ON COLUMN ops.command_id IS 'id of the turn.start that asked for it';
COMMENT ON COLUMN ops.exec IS 'exec that the agent runs, or ran last, in: see reel.execs';
COMMENT ON COLUMN ops.attempt IS 'how often its program was started: 2 after one that ended without a word';
COMMENT ON COLUMN ops.incarnation IS 'which life of the session it runs in';
COMMENT ON COLUMN ops.agent_session_id IS 'the program''s own name of the conversation, newest';
COMMENT ON COLUMN ops.requested_at IS 'when it was taken';
COMMENT ON COLUMN ops.started_at IS 'when its first exec was started';
COMMENT ON COLUMN ops.interrupting_at IS 'when somebody asked for its end first';
COMMENT ON COLUMN ops.finished_at IS 'when its end was recorded';
COMMENT ON COLUMN ops.driver IS 'who drives it: the bridge that said the newest event which answers no command';
COMMENT ON COLUMN ops.heartbeat_at IS 'when the stream server stored that event: its driver was alive then';
COMMENT ON COLUMN ops.last_event_at IS 'when the stream server stored the newest event of the agent itself';
COMMENT ON COLUMN ops.status IS 'success, failed, cancelled, interrupted, max_turns or plan; null until it has finished';
COMMENT ON COLUMN ops.error IS 'why it failed, one sentence';
COMMENT ON COLUMN ops.progress IS 'the last 8,000 characters of what the agent itself said; of its sub-agents nothing';
COMMENT ON COLUMN ops.recent_events IS 'its newest events, at most 20, the oldest first: [{at, type, text, parent}], text at most 200 characters';
COMMENT ON COLUMN ops.plan IS 'the plan that it ended with, at most 16,000 characters';
COMMENT ON COLUMN ops.plan_decision IS 'approved or rejected; null: nobody has decided';
COMMENT ON COLUMN ops.next_turn IS 'the turn that goes on with the approved plan';
COMMENT ON COLUMN ops.budget_micro_usd IS 'what it may spend, in millionths of a US dollar';
COMMENT ON COLUMN ops.calls IS 'model calls so far, in the ledger';
COMMENT ON COLUMN ops.unpriced_calls IS 'of these, calls whose price is not known';
COMMENT ON COLUMN ops.spent_micro_usd IS 'what its calls in the ledger cost so far, where their price is known; null: none is';
COMMENT ON COLUMN ops.input_tokens IS 'tokens read, those from and to a cache among them, as the turn''s end says';
COMMENT ON COLUMN ops.output_tokens IS 'tokens written, as the turn''s end says';
COMMENT ON COLUMN ops.cache_read_input_tokens IS 'of input_tokens, those read from the provider''s cache';
COMMENT ON COLUMN ops.cache_creation_input_tokens IS 'of input_tokens, those put into the provider''s cache';
COMMENT ON COLUMN ops.cost_micro_usd IS 'what it cost, as the turn''s end says; null: not finished, or the price is not known';
COMMENT ON COLUMN ops.tool_uses IS 'how often the agent used a tool';
COMMENT ON COLUMN ops.tool_errors IS 'how often a tool answered with an error';
COMMENT ON COLUMN ops.agent_errors IS 'what went wrong in the agent, retries among it';
COMMENT ON COLUMN ops.steers_queued IS 'messages that were sent while it ran';
COMMENT ON COLUMN ops.steers_delivered IS 'how often the agent was given one';
COMMENT ON COLUMN ops.steers_consumed IS 'of the messages, how many the agent has read';
COMMENT ON COLUMN ops.key_name IS 'name of the virtual key that its model calls are paid with, newest';
COMMENT ON COLUMN ops.checkpoint_n IS 'ordinal of its exec''s event up to which everything has been read';
COMMENT ON COLUMN ops.unreadable_events IS 'events that this version of the views could not read';
COMMENT ON COLUMN ops.first_cursor IS 'where the turn begins in the log: epoch:partition:sequence';
COMMENT ON COLUMN ops.last_cursor IS 'its newest event that these views have seen: epoch:partition:sequence';

-- A tool's two events, and a task's, are one row, at the place of the first. An end without a beginning, and a second end,
-- are rows of their own.
CREATE VIEW turn_events WITH (security_invoker = true) AS
    SELECT
        i.org, i.session, i.turn, i.sequence AS position,
        CASE WHEN i.kind IN ('tool_use', 'tool_result') THEN 'tool'
             WHEN i.kind IN ('task_started', 'task_settled') THEN 'task' ELSE i.kind END AS kind,
        i.parent,
        CASE WHEN i.parent IS NULL THEN 0 ELSE (
            WITH RECURSIVE up (parent, depth) AS (
                SELECT i.parent, 1
              UNION ALL
                SELECT p.parent, up.depth + 1
                FROM up CROSS JOIN LATERAL (
                    SELECT u.parent FROM turn_items AS u
                    WHERE u.org = i.org AND u.session = i.session AND u.turn = i.turn AND u.pair = up.parent
                      AND u.kind = 'tool_use'
                    ORDER BY u.sequence LIMIT 1
                ) AS p
                WHERE p.parent IS NOT NULL AND up.depth < 8
            ) SELECT max(up.depth) FROM up
        ) END AS depth,
        i.pair, i.name,
        CASE WHEN i.kind <> 'tool_result' THEN i.text END AS text, i.data,
        CASE WHEN i.kind = 'tool_result' THEN i.text ELSE e.text END AS output,
        CASE WHEN i.kind = 'tool_result' THEN i.omitted_chars ELSE coalesce(e.omitted_chars, 0) END AS output_omitted_chars,
        coalesce(e.is_error, i.is_error) AS is_error, coalesce(e.status, i.status) AS status, i.message_ids,
        i.at, e.at AS ended_at, (extract(epoch FROM e.at - i.at) * 1000)::double precision AS duration_ms,
        i.source_n, i.cursor, e.cursor AS ended_cursor
    FROM turn_items AS i
        LEFT JOIN LATERAL (
            SELECT x.text, x.omitted_chars, x.is_error, x.status, x.at, x.cursor FROM turn_items AS x
            WHERE i.kind IN ('tool_use', 'task_started') AND x.org = i.org AND x.session = i.session AND x.turn = i.turn
              AND x.pair = i.pair AND x.sequence > i.sequence
              AND x.kind = CASE i.kind WHEN 'tool_use' THEN 'tool_result' ELSE 'task_settled' END
            ORDER BY x.sequence LIMIT 1
        ) AS e ON true
    WHERE i.kind NOT IN ('tool_result', 'task_settled') OR coalesce((
        SELECT b.kind = i.kind FROM turn_items AS b
        WHERE b.org = i.org AND b.session = i.session AND b.turn = i.turn AND b.pair = i.pair AND b.sequence < i.sequence
          AND b.kind IN (i.kind, CASE i.kind WHEN 'tool_result' THEN 'tool_use' ELSE 'task_started' END)
        ORDER BY b.sequence DESC LIMIT 1
    ), true);
COMMENT ON VIEW turn_events IS
    'The timeline of an agent turn, in order of position: what it says, its tools (input and output in one row), its sub-agents, tasks, plans and errors, and the messages that it was steered with. Filter by org, session and turn.';
COMMENT ON COLUMN turn_events.org IS 'organisation';
COMMENT ON COLUMN turn_events.session IS 'session';
COMMENT ON COLUMN turn_events.turn IS 'turn';
COMMENT ON COLUMN turn_events.position IS 'place in the partition of the log: the order of the timeline';
COMMENT ON COLUMN turn_events.kind IS 'text, tool, task, error, plan, steer_queued, result, …: the type of its event, of a tool or task of both';
COMMENT ON COLUMN turn_events.parent IS 'tool use that it belongs to, whose sub-agent said or did it';
COMMENT ON COLUMN turn_events.depth IS 'how deep in sub-agents: 0 is the agent itself, 8 the most that is told';
COMMENT ON COLUMN turn_events.pair IS 'id of the tool use or task';
COMMENT ON COLUMN turn_events.name IS 'of the tool or the agent';
COMMENT ON COLUMN turn_events.text IS 'what it says; a task''s description; the plan';
COMMENT ON COLUMN turn_events.data IS 'what a tool was given, and other details; beyond 64 KiB long texts in it are cut and say so';
COMMENT ON COLUMN turn_events.output IS 'a tool''s output, at most 16,000 characters; null: none yet';
COMMENT ON COLUMN turn_events.output_omitted_chars IS 'characters of the output that were cut; all of it is in the log';
COMMENT ON COLUMN turn_events.is_error IS 'whether a tool, or the agent, says that it failed';
COMMENT ON COLUMN turn_events.status IS 'how it ended: of a task, an answer, the turn; of a steered message the way that it took';
COMMENT ON COLUMN turn_events.message_ids IS 'of steered messages';
COMMENT ON COLUMN turn_events.at IS 'when the stream server stored it, or its beginning';
COMMENT ON COLUMN turn_events.ended_at IS 'when the stream server stored the end of the tool or task; null: there is none yet';
COMMENT ON COLUMN turn_events.duration_ms IS 'milliseconds between the two';
COMMENT ON COLUMN turn_events.source_n IS 'ordinal of the exec''s event that it was read from';
COMMENT ON COLUMN turn_events.cursor IS 'where it stands in the log, or its beginning: epoch:partition:sequence';
COMMENT ON COLUMN turn_events.ended_cursor IS 'where its end stands in the log';

CREATE VIEW session_states WITH (security_invoker = true) AS
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
                 WHERE t.org = s.org AND t.session = s.session AND t.phase <> 'finished') AS unfinished_turns
        ) AS w;
COMMENT ON VIEW session_states IS
    'How each session is, in the one word that people read: Starting, Ready, Working, Sleeping, Recovering or Always-on.';
COMMENT ON COLUMN session_states.org IS 'organisation that it belongs to';
COMMENT ON COLUMN session_states.session IS 'id of the session, unique within the organisation';
COMMENT ON COLUMN session_states.incarnation IS 'which life of this id, from 1: a destroyed id may be created again';
COMMENT ON COLUMN session_states.phase IS 'requested, provisioning, ready, degraded, stopping, stopped, resuming, destroying, destroyed or failed';
COMMENT ON COLUMN session_states.pinned IS 'whether it is spared from both';
COMMENT ON COLUMN session_states.live_execs IS 'execs that have not ended';
COMMENT ON COLUMN session_states.unfinished_turns IS 'turns that have not finished';
COMMENT ON COLUMN session_states.state IS 'Starting; Ready; Working (an exec or a turn runs in it); Sleeping (stopped, its workspace is kept); Recovering (not heard, or its last boot went wrong: the next turn or a resume boots it anew); Always-on (up, idle and pinned); null: destroyed, or about to be';
COMMENT ON COLUMN session_states.owner_type IS 'what kind of thing owns it: user, thread, workflow, …';
COMMENT ON COLUMN session_states.owner_id IS 'the owner''s id within the organisation';
COMMENT ON COLUMN session_states.since IS 'when its phase began: when the stream server stored its event';
COMMENT ON COLUMN session_states.expires_at IS 'when it will be stopped, unless it is pinned or busy';
