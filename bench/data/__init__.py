"""Preference data: reading, checking, and caching what the network sees of it."""
