"""Gather, plan, apply, tell: one controller for each kind, and one queue from which both take their next object.

A controller decides nothing. It may be stopped between any two of its steps, and the next look at the object finds what
is left to do.
"""
