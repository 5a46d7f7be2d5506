"""The command line: parses what the user types, and prints results.  One file per group of commands."""
