"""Errors that a person can act on: each message says what was expected, what came, and what to do."""


class LessonError(Exception):
    """Base of the errors this package raises on purpose."""


class SettingError(LessonError, ValueError):
    """A switch or an argument has a value outside the allowed ones."""


class DataError(LessonError):
    """Data is missing, has another layout than expected, or is damaged beyond repair."""


class StorageError(LessonError, OSError):
    """The cache cannot be written: disk full, no permission, or another process holds it too long."""


class Interrupted(KeyboardInterrupt):
    """The reader pressed Stop. A notebook shows the message alone, without the lines of code in which it happened."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
