"""What a Workflow needs in its namespace, as the manifests that are applied: one builder for each kind, all of it pure.

A manifest holds the fields that the operator owns and no others; whatever else a child has is somebody else's.
"""
