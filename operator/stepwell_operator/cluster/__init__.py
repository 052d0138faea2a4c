"""The only way to Kubernetes: what was seen, and what is written; every write names its manager and the object's uid.

An object that was deleted and made again under its name is another object, and is never written to as the old one.
"""
