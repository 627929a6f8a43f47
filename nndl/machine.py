"""Files, locks and the machine, as a run needs them: nothing here knows what a run is."""

import hashlib
import os
import platform
import re
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import filelock
import numpy as np

from nndl.records import LabError


def reason(error):
    """Why writing failed, in one line."""
    return getattr(error, "strerror", None) or str(error).strip().splitlines()[0]


@contextmanager
def writing(folder, names):
    """{name: path to write to}; the files take their names when the block ends well, all of them, else none does."""
    parts = {name: folder / f"{name}.part" for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield parts
        for name, part in parts.items():
            os.replace(part, folder / name)
    except OSError as error:
        raise LabError(f"{folder} could not be written ({reason(error)}); what was there before is whole") from None
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def take_lock(folder):
    """Lock a run's folder for this process; LabError where it can't be written, or another process holds it.

    The operating system frees the lock when its process ends in any way, so none is ever left behind.
    """
    note = folder / "lock.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", timeout=0, is_singleton=True)
        lock.acquire()
        note.write_text(f"process {os.getpid()}, since {datetime.now():%H:%M}", encoding="utf-8")
    except filelock.Timeout:
        who = note.read_text(encoding="utf-8") if note.exists() else "another process"
        raise LabError(
            f"{folder.parent.parent.name}, profile {folder.name}: another run is going on ({who}, perhaps an open "
            f"notebook); stop it or wait for it"
        ) from None
    except OSError as error:
        raise LabError(f"{folder} cannot be written ({reason(error)})") from None
    return lock


def data_root(room=None):
    """The folder of real data: NNDL_DATA (must exist when it is set), else data/ beside this assignment's folder.

    A relative NNDL_DATA is taken from where the person stands: PWD, which a notebook's kernel inherits.
    """
    named = os.environ.get("NNDL_DATA")
    if not named:
        return (room or Path.cwd()).parent / "data"
    root = Path(os.environ.get("PWD") or ".", named).absolute()
    if not root.is_dir():
        raise LabError(f"NNDL_DATA={named}: no such folder ({root})")
    return root


def missing_data(folder, can_download):
    """What to do about a data set that is not there."""
    other = ", or NNDL_DOWNLOAD=1 to fetch it" if can_download else "; the assignment's README says where it comes from"
    return f"profile full needs real data: no folder {folder}; set NNDL_DATA{other}"


def fingerprint(*arrays):
    """Sixteen hex digits of the SHA-256 of the arrays: their types, shapes and bytes. Not of arrays of objects."""
    sha = hashlib.sha256()
    for array in arrays:
        data = np.ascontiguousarray(array)
        if data.dtype == object:
            raise LabError("fingerprint: an array of objects; give it as texts (dtype str) or numbers")
        sha.update(f"{data.dtype} {data.shape}".encode())
        sha.update(data.tobytes())
    return sha.hexdigest()[:16]


# ---------------------------------------------------------------- the machine


def installed(package):
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor():
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory():
    """The most memory that this process has held, in MiB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20)
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
