"""The name of a prompt set, or a file -> a list of prompts."""
