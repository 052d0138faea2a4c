"""Composition roots: the only modules that choose adapters and wire them to the engine."""
