"""Who started us, and whether it wants us to stay."""
