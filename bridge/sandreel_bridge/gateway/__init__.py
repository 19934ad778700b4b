"""The way from a sandbox to its model: no provider's key enters a sandbox, and no turn starts that nobody meters."""
