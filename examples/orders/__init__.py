"""A shop's orders from payment to parcel: most of what a workflow can have, in one that hangs together."""
