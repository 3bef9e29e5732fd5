"""In processes of their own: the limits cannot be taken back."""

import subprocess
import sys

import pytest

SAYS = """
import ctypes, resource, sys
from consortium.contract.private_process import keep_memory_private
if sys.argv[1:] == ["kept"]:
    keep_memory_private()
print(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
PR_GET_DUMPABLE = 3


def says(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SAYS, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="what is asked is asked of Linux")
def test_no_core_file_and_no_reader() -> None:
    assert says()[1] == "1"
    assert says("kept") == ["True", "0"]
