"""A help desk's real history, replayed: a workflow made from an event log, run through years in seconds."""
