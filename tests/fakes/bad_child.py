"""A training child that goes wrong: `python bad_child.py HOW FD`. No torch, so that it starts at once.

It prepares like a good one, a logistic regression of three inputs, and goes wrong when it is asked to train. What is
printed here is what a crash would print.
"""

import ctypes
import os
import signal
import socket
import sys
import time
from typing import Any

from site_agent.training_child.frames import PREFIX_BYTES, ArraySpec
from site_agent.training_child.pipe import Pipe

LAYOUT = [["0.bias", [1]], ["0.weight", [1, 3]]]
SEEN = {"patients": 45, "test_patients": 16, "validation_patients": 0, "device": "cpu, float32", "parameters": LAYOUT}
FIGURES = {"noisy_steps": 1, "clipped_patients": 2, "broken_patients": 0}


def main(how: str, end: socket.socket) -> None:
    """Serve like a good one until it is asked to train."""
    pipe = Pipe(end)
    pipe.receive_head()
    opened = pipe.receive_head()
    pipe.receive_into(memoryview(bytearray(opened.body_bytes)))
    while True:
        match pipe.receive_head().kind:
            case "look":
                pipe.send("looked", SEEN)
            case "names":
                _send(pipe, "named", {"last": True}, ("lengths", "<u4", (0,), b""), ("text", "|u1", (0,), b""))
            case "equip":
                values = ("first_model", "<f4", (4,), bytes(16))
                _send(pipe, "equipped", {"engine": "loop", "audit": None}, values)
            case "train":
                print("SECRET-001 was the last that was read", flush=True)
                _go_wrong(how, pipe, end)


def _go_wrong(how: str, pipe: Pipe, end: socket.socket) -> None:
    sampled = ("sampled", "<i8", (1,), (3).to_bytes(8, "little"))
    match how:
        case "crashes":
            ctypes.string_at(0)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leaves":
            sys.exit(3)
        case "hangs":
            time.sleep(15)
            sys.exit()  # so that an agent which does not end it is noticed after so long, and not never
        case "talks rubbish":
            end.sendall(bytes(range(PREFIX_BYTES)))
            time.sleep(15)
            sys.exit()
        case "counts no step":
            update = ("update", "<f4", (4,), bytes(16))
            _send(pipe, "trained", FIGURES | {"noisy_steps": 0}, update, sampled)


def _send(pipe: Pipe, kind: str, fields: dict[str, Any], *arrays: tuple[str, str, tuple[int, ...], bytes]) -> None:
    pipe.send(kind, fields, [(ArraySpec(name, dtype, shape), memoryview(data)) for name, dtype, shape, data in arrays])


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
