"""Workers find each other by Leases in their own namespace, and need no other right on the cluster."""

from stepwell.adapters.kubernetes.connection import in_cluster
from stepwell.adapters.kubernetes.leases import RULES
from stepwell.adapters.kubernetes.membership import LeaseMembership
from stepwell.adapters.kubernetes.notice import LeaseNotice

__all__ = ["RULES", "LeaseMembership", "LeaseNotice", "in_cluster"]
