"""The cache on disk: written atomically, under a lock, checked when read; nothing in it is ever unpickled."""

import errno
import itertools
import json
import os
import secrets
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from lessons.errors import StorageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
BLOCKED = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
ELSEWHERE = "set LESSONS_CACHE_DIR to a folder on another disk"
STALE_SECONDS = 3600.0  # a partial file this old was left by a process that was killed


def say(message: str) -> None:
    """Print one line for a human on stderr, so that it never mixes with results or with --json output."""
    print(message, file=sys.stderr, flush=True)


def cache_dir(*parts: str) -> Path:
    """Path inside the cache; nothing is created until something is written. The cache is $LESSONS_CACHE_DIR (read as
    `named_folder` says), else `data/` of the checkout the package lies in, else the user's cache folder
    (platformdirs)."""
    named = os.environ.get("LESSONS_CACHE_DIR")
    if named:
        return named_folder(named).joinpath(*parts)
    if root := _checkout():
        return root.joinpath("data", *parts)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("vision-to-language", appauthor=False)).joinpath(*parts)


def named_folder(name: str) -> Path:
    """The folder that a switch names. A relative one counts from the root of the checkout, where there is one: the
    command line and a kernel, which starts in the folder of its notebook, then mean the same folder."""
    folder = Path(name).expanduser()
    return (_checkout() or Path()) / folder


def _checkout() -> Path | None:
    """The root of the checkout the package lies in, None where it was installed without one."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def _explanation(code: int | None, path: Path, elsewhere: str) -> str | None:
    """The sentence for an error number, or None where the system's own message is the best there is."""
    if code in FULL:
        free = ""
        with suppress(OSError, StopIteration):
            existing = next(p for p in (path, *path.parents) if p.exists())
            free = f" ({shutil.disk_usage(existing).free / 2**20:,.0f} MB free)"
        return f"Disk full or quota reached{free} while writing {path}. Free some space, or {elsewhere}."
    if code in FORBIDDEN:
        return f"No permission for {path}. Make its folder writable, or {elsewhere}."
    if code in BLOCKED:
        return f"Cannot write {path}: a file stands where a folder is needed, or the reverse. Move it away."
    return None


@contextmanager
def _explained(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn the OSErrors a person can act on into StorageError; all others pass unchanged. `elsewhere` says how to have
    the file in another place."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        message = _explanation(error.errno, path, elsewhere)
        if message is None:
            raise
        raise StorageError(message) from error


@contextmanager
def atomic(path: Path | str, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """Yield a temporary sibling of `path` (same suffix) to write to; on success it is flushed to disk and moved into
    place in one step, on any exception it is removed and `path` stays as it was. Readers therefore see the old file or
    the new one, never half of one. Raises StorageError when the disk is full or the folder is not writable;
    `elsewhere` is the way out that its message offers."""
    path = Path(path)
    partial = _partial(path)
    with _explained(path, elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        try:
            yield partial
            with open(partial, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def create(path: Path | str, content: bytes, elsewhere: str = ELSEWHERE) -> bool:
    """Write a new file, whole or not at all. False where something of that name is there already: it stays as it is,
    also when two processes create it at once. Raises StorageError as `atomic` does."""
    path = Path(path)
    partial = _partial(path)
    with _explained(path, elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        try:
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _name(partial, path)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    return True


def _name(partial: Path, path: Path) -> None:
    """Give a finished file its name; FileExistsError where the name is taken."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as exFAT
        file = open(path, "xb")
        try:
            with file:
                file.write(partial.read_bytes())
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink()  # after it is closed: Windows removes no open file
            raise


def _partial(path: Path) -> Path:
    """A name beside `path` that no other process takes."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.partial{path.suffix}")


def _sweep(path: Path) -> None:
    """Remove partial files of `path` that killed processes left behind."""
    for left in path.parent.glob(f".{path.stem}.*.partial{path.suffix}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink()


@contextmanager
def locked(path: Path | str, wait: float = 60.0) -> Iterator[None]:
    """Hold the lock `<path>.lock` against other processes and threads; the system drops it when a process dies. Not
    re-entrant. After 2 s of waiting one line says so; after `wait` seconds StorageError names the lock file."""
    from filelock import FileLock, Timeout

    path = Path(path)
    lock = FileLock(f"{path}.lock")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                lock.acquire(timeout=min(2.0, wait))
            except Timeout:
                if wait > 2:
                    say(f"Another process is writing {path.name}; waiting for it up to {wait:.0f} s ...")
                lock.acquire(timeout=max(0.0, wait - 2.0))
        except Timeout as error:
            raise StorageError(
                f"Another process has held {lock.lock_file} for more than {wait:g} s. Let it finish or stop it "
                "(another notebook on the same home folder?), then run this again."
            ) from error
        except NotImplementedError as error:
            raise StorageError(
                f"The file system of {path.parent} has no file locks. Set LESSONS_CACHE_DIR to a local folder."
            ) from error
    try:
        yield
    finally:
        lock.release()


def set_aside(path: Path, why: str) -> None:
    """Move a damaged file to `<path>.damaged`, or `.damaged-2` and so on where one is kept already, and say so in one
    line."""
    names = itertools.chain([".damaged"], (f".damaged-{number}" for number in itertools.count(2)))
    kept = next(kept for name in names if not os.path.lexists(kept := path.with_name(path.name + name)))
    with suppress(OSError):
        os.replace(path, kept)
    reason = " ".join(str(why).split())[:120]
    say(f"{path.name} is damaged ({reason}); kept aside as {kept} and made anew when needed.")


def read_json(path: Path | str, default: Any) -> Any:
    """The object in a JSON file; `default` when there is none, or when it is damaged (then kept aside as .damaged).
    Raises StorageError when the file may not be read."""
    path = Path(path)
    try:
        with _explained(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        set_aside(path, str(error))
        return default


def write_json(path: Path | str, obj: Any, elsewhere: str = ELSEWHERE) -> None:
    """Write `obj` as JSON, atomically. Raises StorageError (disk full, no permission) as `atomic` does."""
    text = json.dumps(obj, indent=2, ensure_ascii=False) + "\n"
    with atomic(path, elsewhere) as partial:
        partial.write_text(text, encoding="utf-8")


def _checksum(tensor: torch.Tensor) -> int:
    """CRC-32 of a contiguous CPU tensor's bytes."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


def save_tensors(path: Path | str, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Write named tensors (any shape, dtype, device) as safetensors, atomically, with `meta` as JSON and a checksum
    per tensor in the header; tensors that share memory are written as copies. Raises StorageError (full, forbidden)."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    sums = {name: _checksum(tensor) for name, tensor in ready.items()}
    header = {"meta": json.dumps(meta), "crc32": json.dumps(sums)}
    with atomic(path) as partial:
        partial.touch()
        usual = partial.stat().st_mode  # safetensors makes a file that only its owner may read
        try:
            save_file(ready, partial, metadata=header)
            partial.chmod(usual)
        except SafetensorError as error:  # it reports a full disk in its text only: "(os error 28)"
            code = next((c for c in FULL | FORBIDDEN if f"(os error {c})" in str(error)), None)
            if code is None:
                raise
            raise OSError(code, str(error)) from error


def load_tensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The tensors (CPU) and the meta that save_tensors wrote; None when there is no such file, or when it is damaged
    (cut off, changed bytes, another format): then it is kept aside as .damaged with a one-line warning. Raises
    StorageError when the file may not be read."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        return None
    try:
        with _explained(path), safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        meta, sums = json.loads(header["meta"]), json.loads(header["crc32"])
        changed = [name for name, tensor in tensors.items() if sums.get(name) != _checksum(tensor)]
        if changed or set(sums) != set(tensors):
            raise ValueError(f"checksum of {', '.join(changed) or 'its tensors'} differs")
        return tensors, meta
    except FileNotFoundError:  # moved away by another process meanwhile
        return None
    except (SafetensorError, ValueError, KeyError) as error:
        set_aside(path, str(error))
        return None
