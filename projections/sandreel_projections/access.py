"""Who may read the views: the group that every analyst belongs to, and what it is granted. Pure: SQL as text.

What an analyst sees of a table is decided by row-level security (see the migrations); these grants only open the
tables to it. Days of `exec_blocks` are not granted: they are read through their parent, whose policy then holds.
"""

from __future__ import annotations

# Roles belong to a whole server, not to a database: every installation on one shares the group, and none of its rows.
GROUP = "sandreel_analysts"
ACCESS = "reel_access"

TABLES = (
    "command_log",
    "command_outcomes",
    "credential_log",
    "cursors",
    "event_log",
    "exec_blocks",
    "exec_events",
    "execs",
    "session_stages",
    "sessions",
    "turn_items",
    "turns",
    "usage_calls",
    "usage_reconciled",
)
# Without `body`: what nobody can read may have secrets in it anywhere.
QUARANTINE = ("stream", "epoch", "sequence", "partition", "cursor", "subject", "reason", "at")
VIEWS = (
    "audit_log",
    "commands",
    "credential_audit",
    "credentials",
    "exec_lines",
    "ops",
    "projection_lag",
    "session_states",
    "session_timeline",
    "turn_events",
    "usage_daily",
    "usage_ledger",
    "usage_monthly",
    "usage_turns",
    "usage_weekly",
)


def grants(schema: str) -> str:
    """A script that lets the group read the views in `schema`; nothing where there is no group and no right to make it.

    Idempotent. Run at the end of every migration, so that a schema that was made anew is open to those that there are.
    """
    names = ", ".join(f"{schema}.{name}" for name in (*TABLES, *VIEWS))
    # ruff: noqa: S608 - nothing of it comes from outside
    return f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{GROUP}') THEN
        CREATE ROLE {GROUP} NOLOGIN;
        COMMENT ON ROLE {GROUP} IS 'sandreel: whoever may read the views, each the rows of its own organisations';
    END IF;
EXCEPTION
    -- Somebody on the same server was first; or it is an operator's own server, who makes the group (docs/views.md).
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$;
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{GROUP}') THEN
        GRANT USAGE ON SCHEMA {schema}, {ACCESS} TO {GROUP};
        GRANT SELECT ON {names}, {ACCESS}.analyst_orgs TO {GROUP};
        -- Earlier versions granted all of it.
        REVOKE SELECT ON {schema}.quarantine FROM {GROUP};
        GRANT SELECT ({", ".join(QUARANTINE)}) ON {schema}.quarantine TO {GROUP};
    END IF;
END $$;
"""


def confinement(database: str, owner: str) -> str:
    """A script that takes back what Postgres lets everybody do in a database: temporary tables, large objects, and
    advisory locks, on which projectors decide who leads. For a superuser, and a database that holds nothing else.

    owner  the role of `[postgres] dsn`, which keeps it all
    """
    return f"""\
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
DO $$
DECLARE f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc
             WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^(pg_(try_)?advisory|lo_(creat|from_bytea))'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {owner}', f);
    END LOOP;
END $$;
"""
