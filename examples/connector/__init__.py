"""A foreign topic starts runs and calls them back, and what cannot be read is set aside."""
