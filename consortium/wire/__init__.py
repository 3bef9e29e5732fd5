"""The wire: the only place that knows gRPC. Bytes become checked messages here, and nothing is decided.

TLS 1.3 and nothing older, in both directions. gRPC has no setting for a least TLS version that Python could reach; it
has one for the cipher suites of TLS 1.2 and older, read from the environment once, when its library is loaded. With a
single suite in it that needs a pre-shared key, which gRPC never has, neither side can complete an older handshake;
TLS 1.3's own suites are not affected. It is set here because this file runs before any module of the package imports
gRPC. `tls.require_pinned` refuses to open a port or a connection if somebody else imported it earlier; a test makes
both handshakes to prove the point; the server looks at the version again on each call.
"""

import os
import sys

_SUITES_VARIABLE = "GRPC_SSL_CIPHER_SUITES"
_NO_USABLE_SUITE = "ECDHE-PSK-CHACHA20-POLY1305"

TLS13_ONLY = "grpc" not in sys.modules or os.environ.get(_SUITES_VARIABLE) == _NO_USABLE_SUITE
os.environ[_SUITES_VARIABLE] = _NO_USABLE_SUITE
# gRPC's C library writes the failed handshake of every port scanner to stderr; what matters is logged by the server.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
