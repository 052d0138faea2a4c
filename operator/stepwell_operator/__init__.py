"""What the Workflows and Runs of a cluster say is carried out, once each, and what became of them is told.

It may be killed anywhere. All that it must remember stands in Postgres, written with what was done; all that it sees in
the cluster is looked at again after a restart, and doing everything twice changes nothing.
"""
