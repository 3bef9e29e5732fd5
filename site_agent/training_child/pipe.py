"""Frames over a socket that two processes share. The only reading and writing between agent and training child."""

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from site_agent.training_child.frames import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    PREFIX_BYTES,
    ArraySpec,
    Head,
    encode_head,
    read_head,
    read_prefix,
)

Buffer: TypeAlias = memoryview
"""Bytes of an array, contiguous."""


class PipeClosed(Exception):
    """The other end is gone."""


class PipeSilent(Exception):
    """Nothing came, or nothing could be sent, until the time was over."""


class Pipe:
    """One end. One thread at a time sends, and one receives.

    Any method raises PipeClosed when the other end is gone, and PipeSilent after the time that `until` set.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._until: float | None = None  # of the monotonic clock

    def until(self, moment: float | None) -> None:
        """From now on nothing waits longer than until this moment of the monotonic clock; None waits for ever."""
        self._until = moment
        if moment is None:
            self._end.settimeout(None)

    def send(self, kind: str, fields: Mapping[str, Any], arrays: Sequence[tuple[ArraySpec, Buffer]] = ()) -> None:
        """Send a frame; the arrays are sent from where they lie."""
        for spec, data in arrays:
            assert data.nbytes == spec.size_bytes  # this side's own doing
        self._watch()
        try:
            self._end.sendall(encode_head(Head(kind, fields, tuple(spec for spec, _ in arrays))))
            for _, data in arrays:
                if data.nbytes:
                    self._end.sendall(data)
        except TimeoutError as error:
            raise PipeSilent from error
        except OSError as error:
            raise PipeClosed from error

    def receive_head(self, *, head_max: int = HEAD_BYTES_MAX, body_max: int = BODY_BYTES_MAX) -> Head:
        """The next frame, without its body, which `receive_into` must take next; raises FrameRefused."""
        prefix = bytearray(PREFIX_BYTES)
        self._fill(memoryview(prefix))
        head_bytes, body_bytes = read_prefix(bytes(prefix), head_max=head_max, body_max=body_max)
        head = bytearray(head_bytes)
        self._fill(memoryview(head))
        return read_head(bytes(head), body_bytes)

    def receive_into(self, buffer: Buffer) -> None:
        """The next bytes of a body."""
        self._fill(buffer)

    def close(self) -> None:
        """No frame comes or goes any more."""
        self._end.close()

    def _fill(self, buffer: Buffer) -> None:
        """Read until the buffer is full."""
        done = 0
        while done < len(buffer):
            self._watch()
            try:
                count = self._end.recv_into(buffer[done:])
            except TimeoutError as error:
                raise PipeSilent from error
            except OSError as error:
                raise PipeClosed from error
            if not count:
                raise PipeClosed
            done += count

    def _watch(self) -> None:
        """How long the next call to the system may take."""
        if self._until is None:
            return
        left = self._until - time.monotonic()
        if left <= 0:
            raise PipeSilent
        try:
            self._end.settimeout(left)
        except OSError as error:
            raise PipeClosed from error
