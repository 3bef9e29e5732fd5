"""A caller with Python's own TLS instead of gRPC's: for handshakes that our client would never make."""

import asyncio
import ssl
from pathlib import Path

from consortium.contract.certificates import Issued


async def first_bytes(
    port: int,
    folder: Path,
    *,
    own: Issued | None = None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """What a gRPC server says first (its HTTP/2 settings) to a caller it has accepted.

    In TLS 1.3 a server judges the caller's certificate after the caller's handshake is done: only what can be read
    afterwards tells. Raises OSError (ssl.SSLError included) or returns nothing if the caller was not accepted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the server is ours; it is the caller that is on trial
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if own is not None:
        path = folder / "own.pem"
        path.write_bytes(own.certificate_pem + own.key_pem)
        context.load_cert_chain(path)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return await asyncio.wait_for(reader.read(1024), 60)
    finally:
        writer.transport.abort()
