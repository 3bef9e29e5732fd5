"""What a process that trains may read beside its data: Python, libraries, facts of the machine, devices; its variables.

None of it is the hospital's: no home folder, no /etc as a whole, no /proc of other processes, no /tmp.
"""

import os
import site
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from site_agent.landlock import DEVICE, READ, WRITE, Grant

_OURS = ("audit", "consortium", "privacy", "site_agent")
_LIBRARIES = (
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/usr/local/cuda", "/usr/share", "/opt/rocm",
    "/nix/store", "/gnu/store",
    "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
)  # fmt: skip
_MACHINE = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/version", "/proc/devices",
    "/proc/self", "/proc/sys/vm", "/proc/sys/kernel", "/proc/driver/nvidia", "/sys",
)  # fmt: skip
_ALWAYS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_DEVICES = Path("/dev")
_GPUS = ("nvidia*", "dri", "kfd")

_VARIABLES = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "CUDA_HOME", "CUBLAS_WORKSPACE_CONFIG",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
)  # fmt: skip


def child_environment(inherited: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Variables for a process that trains: those that libraries need, and folders of its own. No proxy, no password.

    Args:
        inherited: The parent's.
        scratch: The folder it may write to; temporary files and caches go there, for its home cannot be read.
    """
    kept = {name: inherited[name] for name in _VARIABLES if name in inherited}
    folder = str(scratch)
    own = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TORCH_HOME", "CUDA_CACHE_PATH")
    # joblib would try to share memory by name, which is refused, and say so.
    return kept | dict.fromkeys(own, folder) | {"PYTHONDONTWRITEBYTECODE": "1", "JOBLIB_MULTIPROCESSING": "0"}


def grants(readable: tuple[Path, ...], writable: tuple[Path, ...], *, gpu: bool) -> tuple[Grant, ...]:
    """Everything that stays possible with files."""
    devices = [Path(name) for name in _ALWAYS]
    if gpu:
        devices += [path for pattern in _GPUS for path in _DEVICES.glob(pattern)]
    return (
        *(Grant(path, READ) for path in (*_python(), *(Path(name) for name in _MACHINE), *readable)),
        *(Grant(path, WRITE) for path in writable),
        *(Grant(path, DEVICE) for path in devices),
    )


def _python() -> list[Path]:
    """The interpreter, what is installed for it, and our own packages where they lie elsewhere.

    Never the module path as such: the current folder may be on it, and that may be the hospital's home.
    """
    folders = [sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(), site.getusersitepackages()]
    for name in _OURS:
        folders += import_module(name).__path__  # imported now: later, the folder they lie in cannot be searched
    searched = (Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    named = (*(Path(folder) for folder in (*folders, *_LIBRARIES)), *searched)
    return [folder for folder in named if folder.is_absolute() and folder != Path("/")]
