"""Every test gets an empty cache of its own, no network and none of the caller's switches."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """An empty cache under tmp_path; LESSONS_* switches of the caller's shell are removed."""
    for name in [key for key in os.environ if key.startswith("LESSONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path
