"""The clock starts runs: a schedule in a time zone, with a filter, and with catch-up after downtime."""
