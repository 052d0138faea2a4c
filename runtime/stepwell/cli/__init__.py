"""The command line: thin over the composition root; whatever it prints, programs can have as JSON."""
