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
        "What did agents cost, by model?",
        """SELECT model, count(*) AS turns, sum(output_tokens) AS output_tokens, sum(cost_micro_usd) AS cost_micro_usd
FROM reel.ops WHERE phase = 'finished' GROUP BY model ORDER BY cost_micro_usd DESC NULLS LAST""",
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

QUESTIONS: dict[str, str] = {
    "Which sessions failed last week, and why?": FAILED,
    "What did an exec print between lines 1000 and 1100?": PRINTED,
    "Who destroyed this session, by which command, from where?": DESTROYED,
    "How long did creates take at p95, by stage?": CREATES,
}
