-- Who may see which organisations. It is not a view of the log, so it lives beside them: dropping or rebuilding
-- the views takes no analyst's rights away. Several schemas of views share it.
CREATE SCHEMA IF NOT EXISTS reel_access;
COMMENT ON SCHEMA reel_access IS 'sandreel: which analyst may see which organisations. Written by `sandreel analyst`.';
CREATE TABLE IF NOT EXISTS reel_access.analyst_orgs (
    analyst text NOT NULL,
    org text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (analyst, org)
);
COMMENT ON TABLE reel_access.analyst_orgs IS 'One row per analyst and organisation whose rows it may see. An analyst sees its own.';
COMMENT ON COLUMN reel_access.analyst_orgs.analyst IS 'the login''s name';
COMMENT ON COLUMN reel_access.analyst_orgs.org IS 'organisation, by its exact name';
COMMENT ON COLUMN reel_access.analyst_orgs.added_at IS 'when it was bound';
-- Only what is missing: each of these waits for whoever reads the table, and everybody else waits behind it. A rebuild
-- runs this beside living views, whose analysts read the table in every statement.
DO $$ BEGIN
    IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = 'reel_access.analyst_orgs'::regclass) THEN
        ALTER TABLE reel_access.analyst_orgs ENABLE ROW LEVEL SECURITY;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'reel_access.analyst_orgs'::regclass AND polname = 'own') THEN
        CREATE POLICY own ON reel_access.analyst_orgs
            FOR SELECT USING (analyst = (CURRENT_USER::text COLLATE "default"));
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_policy WHERE polrelid = 'reel_access.analyst_orgs'::regclass AND polname = 'operators'
    ) THEN
        CREATE POLICY operators ON reel_access.analyst_orgs FOR SELECT TO pg_read_all_data USING (true);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION reel_access.my_orgs() RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT ARRAY(
        SELECT a.org FROM reel_access.analyst_orgs AS a WHERE a.analyst = (CURRENT_USER::text COLLATE "default")
    );
END;
COMMENT ON FUNCTION reel_access.my_orgs() IS 'The organisations of whoever asks; empty for who is no analyst.';
