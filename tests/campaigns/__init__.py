"""Long trials, which are run by hand; each says how in its first line."""
