"""People outside move a run: two callbacks in one status, refusals, and repeats that do no harm."""
