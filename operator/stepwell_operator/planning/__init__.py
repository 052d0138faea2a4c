"""What is to be done and told, given what was seen: pure, so every rule of the operator is tested without a cluster.

Nothing that a tenant can write is taken for a fact of ours: a status is compared with, and never decided by.
"""
