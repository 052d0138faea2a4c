"""Time moves a run: several timeouts in one status, fixed ones and one that the run itself decides."""
