"""The schema of the views, step by step. Only forward: a view can always be rebuilt."""
