"""One query for each view, and the questions that analysts come with: in `docs/views.md`, and run by a test.

Names in them (`demo`, `x-1`, `default`) are those of the README.
"""

from __future__ import annotations

# By view, table or function: what is asked, and how.
EXAMPLES: dict[str, tuple[str, str]] = {
    "sessions": (
        "Who has sessions that run, and since when?",
        """SELECT org, owner_type, owner_id, session, phase, ready_at
FROM reel.sessions WHERE phase IN ('ready', 'degraded') ORDER BY ready_at""",
    ),
    "session_timeline": (
        "What did this session go through, and how long did each stage take?",
        """SELECT incarnation, number, boot, stage, detail, began_at, duration_ms
FROM reel.session_timeline WHERE session = 'demo' ORDER BY incarnation, number""",
    ),
    "execs": (
        "Which jobs failed today, and where do they begin in the log?",
        """SELECT session, exec, argv, shell, exit_code, signal, reason, duration_ms, first_cursor
FROM reel.execs
WHERE accepted_at > now() - interval '1 day' AND phase IN ('exited', 'lost') AND exit_code IS DISTINCT FROM 0
ORDER BY accepted_at DESC""",
    ),
    "exec_lines": (
        "What were the last words of a job on stderr?",
        """SELECT line, text FROM reel.exec_lines
WHERE exec = 'x-1' AND stream = 'stderr' ORDER BY line DESC LIMIT 10""",
    ),
    "commands": (
        "What was refused this week, to whom and why?",
        """SELECT sent_at, actor, source, session, type, code, message
FROM reel.commands
WHERE outcome = 'refused' AND outcome_at > now() - interval '7 days' ORDER BY outcome_at DESC""",
    ),
    "audit_log": (
        "Everything about one session, in order",
        """SELECT at, kind, type, actor, source, aggregate_id, outcome, message, cursor
FROM reel.audit_log
WHERE session = 'demo' AND type IS DISTINCT FROM 'exec.output' ORDER BY at""",
    ),
    "ops": (
        "What do agents do right now, and what have they spent?",
        """SELECT session, turn, agent, requested_by, last_event_at, spent_micro_usd, right(progress, 200) AS says
FROM reel.ops WHERE state = 'running' ORDER BY requested_at""",
    ),
    "turn_events": (
        "What did the agent do, step by step?",
        """SELECT repeat('  ', depth) || kind AS kind, name, coalesce(text, data::text) AS what, left(output, 80) AS output,
       is_error, duration_ms
FROM reel.turn_events WHERE org = 'default' AND session = 'demo' AND turn = 't-1' ORDER BY position""",
    ),
    "usage_ledger": (
        "Which calls cost most this week?",
        """SELECT stored_at, user_id, agent_name, turn, response_model, input_tokens, output_tokens, cost_micro_usd
FROM reel.usage_ledger WHERE org = 'default' AND day > current_date - 7
ORDER BY cost_micro_usd DESC NULLS LAST LIMIT 20""",
    ),
    "usage_turns": (
        "On which turns do an agent and the gateway disagree?",
        """SELECT org, session, turn, agent_name, cost_micro_usd, agent_cost_micro_usd, drift_micro_usd, drift_tokens
FROM reel.usage_turns WHERE drifted ORDER BY reconciled_at DESC""",
    ),
    "usage_daily": (
        "What does each user cost a day?",
        """SELECT day, user_id, sum(cost_micro_usd) AS cost_micro_usd, sum(unpriced_calls) AS unpriced_calls
FROM reel.usage_daily WHERE org = 'default' AND day > current_date - 30
GROUP BY day, user_id ORDER BY day, user_id""",
    ),
    "usage_weekly": (
        "What did each agent use, week by week?",
        """SELECT week, agent_name, sum(calls) AS calls, sum(output_tokens) AS output_tokens
FROM reel.usage_weekly WHERE org = 'default' GROUP BY week, agent_name ORDER BY week, agent_name""",
    ),
    "usage_monthly": (
        "The bill: what did each organisation cost a month?",
        """SELECT month, org, sum(cost_micro_usd) AS cost_micro_usd, sum(unpriced_calls) AS unpriced_calls
FROM reel.usage_monthly GROUP BY month, org ORDER BY month, org""",
    ),
    "session_states": (
        "How are the sessions?",
        "SELECT org, state, count(*) FROM reel.session_states WHERE state IS NOT NULL GROUP BY org, state ORDER BY org, state",
    ),
    "credentials": (
        "Which sessions and turns may ask for the token now, and who said so?",
        """SELECT org, session, turn, granted_by, purpose, granted_at, expires_at, leases
FROM reel.credentials WHERE slug = 'github' AND state = 'standing' ORDER BY granted_at""",
    ),
    "credential_audit": (
        "Who has held this value (by its fingerprint), from where to where in the log?",
        """SELECT session, turn, asked_by, exec, program, purpose, held_from, held_to, state, reason
FROM reel.credential_audit WHERE kind = 'leased' AND slug = 'github' ORDER BY at""",
    ),
    "credential_log": (
        "What is refused, and why?",
        """SELECT slug, code, sum(1 + unsaid) AS refusals, max(at) AS newest
FROM reel.credential_log WHERE kind = 'refused' GROUP BY slug, code ORDER BY refusals DESC""",
    ),
    "turns": (
        "How do turns end, by agent?",
        "SELECT agent, status, count(*) FROM reel.turns WHERE phase = 'finished' GROUP BY agent, status ORDER BY agent",
    ),
    "turn_items": (
        "Which tools answer with most?",
        """SELECT kind, max(length(text) + omitted_chars) AS chars FROM reel.turn_items
WHERE kind = 'tool_result' GROUP BY kind""",
    ),
    "usage_calls": (
        "How long do models take to answer?",
        """SELECT response_model, percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms
FROM reel.usage_calls GROUP BY response_model""",
    ),
    "usage_reconciled": (
        "How often do agents say what they used?",
        """SELECT count(*) AS turns, count(agent_input_tokens) AS told, count(*) FILTER (WHERE drifted) AS drifted
FROM reel.usage_reconciled""",
    ),
    "projection_lag": (
        "Is what I read the newest?",
        "SELECT stream, lag_events, lag_s, looked_s_ago FROM reel.projection_lag",
    ),
    "quarantine": (
        "Which events could no view digest?",
        "SELECT at, cursor, subject, reason FROM reel.quarantine ORDER BY at DESC",
    ),
    "exec_blocks": (
        "How much was printed, by day?",
        """SELECT date_trunc('day', at) AS day, sum(length(data)) AS bytes, sum(lines) AS lines
FROM reel.exec_blocks GROUP BY day ORDER BY day""",
    ),
    "exec_events": (
        "Who was sent which signal?",
        """SELECT stored_at, session, exec, data ->> 'signal' AS signal, data ->> 'why' AS why, actor
FROM reel.exec_events WHERE type = 'exec.signalled' ORDER BY stored_at""",
    ),
    "event_log": (
        "Which credentials were given out, and for what?",
        """SELECT stored_at, session, data ->> 'slug' AS slug, data ->> 'purpose' AS purpose, source
FROM reel.event_log WHERE aggregate = 'credential' AND type = 'credential.leased' ORDER BY stored_at""",
    ),
    "command_log": (
        "Who sends most?",
        "SELECT actor, type, count(*) FROM reel.command_log GROUP BY actor, type ORDER BY count(*) DESC",
    ),
    "command_outcomes": (
        "How are commands answered?",
        "SELECT outcome, code, count(*) FROM reel.command_outcomes GROUP BY outcome, code ORDER BY count(*) DESC",
    ),
    "session_stages": (
        "How long are sessions idle before they are stopped?",
        """SELECT date_trunc('day', began_at) AS day, avg(duration_ms) / 60000 AS minutes
FROM reel.session_stages WHERE stage = 'ready' GROUP BY day ORDER BY day""",
    ),
    "cursors": ("How far has each stream been read?", "SELECT stream, sequence, at FROM reel.cursors"),
    "lines_of": (
        "A few lines of a long job: found by the index, however long it is",
        "SELECT line, text FROM reel.lines_of('default', 'demo', 'x-1', 100, 120)",
    ),
    "search": (
        "Lines that contain a word, in one job (leave out `exec` and `session` to search the whole organisation)",
        "SELECT line, text FROM reel.search('default', 'FAILED', session => 'demo', exec => 'x-1')",
    ),
    "bigint_of": (
        "A sum of costs, whatever is in them",
        "SELECT reel.bigint_of(sum(cost_micro_usd)) AS cost_micro_usd FROM reel.usage_calls WHERE org = 'default'",
    ),
    "text_of": (
        "Bytes as text, whatever they are",
        "SELECT n, reel.text_of(data) FROM reel.exec_blocks WHERE exec = 'x-1' AND NOT is_text ORDER BY n",
    ),
}

FAILED = """SELECT org, session, boot, began_at AS failed_at, detail AS why
FROM reel.session_timeline
WHERE stage = 'failed' AND began_at > now() - interval '7 days'
ORDER BY began_at DESC"""
PRINTED = "SELECT line, text FROM reel.lines_of('default', 'demo', 'x-1', 1000, 1100)"
DESTROYED = """SELECT actor, command_id, type, source, sent_at, outcome, outcome_at, cursor
FROM reel.commands
WHERE session = 'demo' AND event_type = 'session.destroying'"""
CREATES = """SELECT stage, count(*) AS creates,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms
FROM reel.session_timeline
WHERE boot = 1 AND stage IN ('requested', 'provisioning') AND ended_at > now() - interval '7 days'
GROUP BY stage ORDER BY min(number)"""

COST = """SELECT c.actor, c.source, c.sent_at, c.command_id, o.turn, o.agent, l.stored_at, l.call_id, l.response_model,
       l.input_tokens, l.cache_read_input_tokens, l.output_tokens, l.web_searches, l.prices,
       l.cost_micro_usd, sum(l.cost_micro_usd) OVER () AS turn_cost_micro_usd,
       count(*) FILTER (WHERE l.cost_micro_usd IS NULL) OVER () AS unpriced_calls
FROM reel.ops AS o
     LEFT JOIN reel.commands AS c USING (org, session, command_id)
     LEFT JOIN reel.usage_ledger AS l USING (org, session, turn)
WHERE o.org = 'default' AND o.session = 'demo' AND o.turn = 't-1'
ORDER BY l.stored_at"""

QUESTIONS: dict[str, str] = {
    "Which sessions failed last week, and why?": FAILED,
    "What did an exec print between lines 1000 and 1100?": PRINTED,
    "Who destroyed this session, by which command, from where?": DESTROYED,
    "How long did creates take at p95, by stage?": CREATES,
    "Why did a turn cost what it cost, from the command to each call?": COST,
}
