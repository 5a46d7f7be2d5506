"""What is written to disk and read by reports: protocol, run folder, configuration, scores, migrations.

Values and paths only; imports neither torch nor diffusers at import time.
"""
