"""What is wrong with the environment variables that huggingface_hub reads."""

from __future__ import annotations

import os
import traceback

VARIABLES = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_")
"""How the names of environment variables begin that huggingface_hub reads."""


def wrong_environment(error: BaseException) -> tuple[str, str] | None:
    """What is wrong and what to do if huggingface_hub, which reads its environment when it is imported, does not start; None for other errors."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>")
    imported = (str(frame.f_globals.get("__name__")) for frame in frames)
    if not isinstance(error, ValueError) or not any(name.startswith("huggingface_hub.") for name in imported):
        return None
    names = ", ".join(sorted(name for name in os.environ if name.startswith(VARIABLES)))
    return (
        f"huggingface_hub does not start with this environment ({error})",
        f"correct or unset the environment variable that is wrong, one of {names}",
    )
