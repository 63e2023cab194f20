"""Vision to Language: the helper package of the eleven notebooks."""

__version__ = "0.1.0"

# Imported when first used: `import lessons` alone must not cost the second that torch takes.
_WHERE = {
    "start": "session",
    "fit": "training",
    "check": "exercises",
    "hint": "exercises",
    "solution": "exercises",
    "progress": "exercises",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'lessons' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
