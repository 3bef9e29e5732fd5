"""Regenerates consortium_pb2.py and .pyi from consortium.proto: `python -m consortium.wire.generate`.

The generated files are committed, so that installing needs no compiler; a test compares them with the schema. Needs
grpcio-tools, which only developers install.
"""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "consortium/wire/consortium.proto"
GENERATED = ("consortium_pb2.py", "consortium_pb2.pyi")


def generate(out: Path) -> None:
    """Write the generated modules under `out`, in the folders their package names ask for.

    Raises:
        ImportError: grpcio-tools is not installed.
        RuntimeError: the schema does not compile.
    """
    protoc = import_module("grpc_tools.protoc")
    code = protoc.main(["protoc", f"--proto_path={ROOT}", f"--python_out={out}", f"--pyi_out={out}", SCHEMA])
    if code != 0:
        raise RuntimeError(f"{SCHEMA} does not compile")


if __name__ == "__main__":
    generate(ROOT)
    sys.stdout.write(f"wrote {', '.join(GENERATED)} beside {SCHEMA}\n")
