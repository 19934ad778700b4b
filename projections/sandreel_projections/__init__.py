"""Views of the log in Postgres. Every one can be dropped and rebuilt to the same rows (law 5)."""
