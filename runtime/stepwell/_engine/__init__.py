"""The loops: each loads rows, calls user code, asks the domain what follows, and stores it. No rule lives here."""
