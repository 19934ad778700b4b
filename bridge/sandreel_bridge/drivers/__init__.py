"""Programs that run in a sandbox, beside an agent that does not speak in lines. Each is one file of the standard library alone, which
its adapter brings along: so it is always the one that the adapter was written for, in whatever image."""
