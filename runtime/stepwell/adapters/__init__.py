"""Each adapter speaks one driver's language and implements ports; adapters never know each other."""
