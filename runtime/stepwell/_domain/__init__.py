"""Everything here is a pure function of its arguments: no I/O, no asyncio, no clock, no randomness, no log."""
