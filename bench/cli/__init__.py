"""The command line: what a user types becomes values, and values become text.  One file for each group of commands."""
