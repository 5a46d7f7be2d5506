"""A plug-in that cannot be imported."""
