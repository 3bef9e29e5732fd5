"""The settings of gRPC that both ends share, and what each is for."""

from consortium.wire import limits

GO_AHEAD = (("consortium-go-ahead", "1"),)
RESUMES = "consortium-resumes"
"""Metadata of an upload whose sender can go on in the middle of its vector."""
RECEIVED = "consortium-received"
"""Beside the go-ahead for it: how many bytes the coordinator has, decimal. The sender goes on from there."""
"""The initial metadata of an upload whose header was agreed to. A refused call has none."""

Options = list[tuple[str, int | str]]


def common(*, message_bytes_max: int, keepalive_s: float) -> Options:
    """For servers and channels alike."""
    return [
        # Refused from the length prefix, before the memory is taken.
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
        # Identity only. Masked vectors do not compress, and a few KiB of gzip could unfold to the limit above.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # A peer that vanished without a word (power, network) is noticed within one and a half times this.
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(keepalive_s * 500)),
        ("grpc.http2.ping_timeout_ms", int(keepalive_s * 500)),  # gRPC waits for the later of the two
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def server(*, message_bytes_max: int, keepalive_s: float) -> Options:
    """For a listening port."""
    return [
        *common(message_bytes_max=message_bytes_max, keepalive_s=keepalive_s),
        # Without this two coordinators could listen on one port and share its connections.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(keepalive_s * 500)),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", limits.CALLS_PER_CONNECTION_MAX),
        ("grpc.max_allowed_incoming_connections", limits.CONNECTIONS_MAX),
        # What a site may have on its way that nobody has read yet. gRPC would let it grow with the speed of the line.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", limits.UNREAD_BYTES_MAX),
        ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE_WAIT_S * 1000)),
    ]


def client(*, keepalive_s: float, through_proxy: bool, server_name: str | None) -> Options:
    """For a channel to the coordinator."""
    options: Options = [
        *common(message_bytes_max=limits.MESSAGE_BYTES_MAX, keepalive_s=keepalive_s),
        ("grpc.enable_http_proxy", int(through_proxy)),
        ("grpc.use_local_subchannel_pool", 1),  # clients in one process do not wait for each other's back-off
        ("grpc.enable_retries", 0),  # whoever calls knows whether a call may be made twice; gRPC does not
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 10_000),
    ]
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))
    return options
