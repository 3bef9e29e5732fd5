"""Which proxy is meant, and which of OpenSSL's numbers means what."""

import pytest

from consortium.wire import tls
from consortium.wire.errors import TlsProblem, TlsRefused


@pytest.mark.parametrize(
    ("variables", "host", "proxy"),
    [
        ({}, "hub.example.org", None),
        ({"https_proxy": "http://proxy.local:3128"}, "hub.example.org", "proxy.local:3128"),
        ({"https_proxy": "http://user:word@proxy.local:3128/"}, "hub.example.org", "proxy.local:3128"),
        ({"http_proxy": "proxy.local"}, "hub.example.org", "proxy.local:80"),
        ({"grpc_proxy": "http://a:1", "https_proxy": "http://b:2", "http_proxy": "http://c:3"}, "hub", "a:1"),
        ({"https_proxy": "http://proxy.local:3128", "no_proxy": "example.org"}, "hub.example.org", None),
        ({"https_proxy": "http://proxy.local:3128"}, "127.0.0.1", None),
        ({"https_proxy": "http://proxy.local:3128"}, "localhost", None),
    ],
)
def test_the_proxy_that_is_meant(
    variables: dict[str, str], host: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tls.proxy_for(host) == proxy


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (10, TlsProblem.EXPIRED),
        (9, TlsProblem.NOT_YET_VALID),
        (18, TlsProblem.FOREIGN_AUTHORITY),
        (20, TlsProblem.FOREIGN_AUTHORITY),
        (62, TlsProblem.WRONG_HOST),
        (64, TlsProblem.WRONG_HOST),
        (26, TlsProblem.OTHER),
    ],
)
def test_the_numbers(number: int, problem: TlsProblem) -> None:
    assert tls._certificate_problem(number) is problem


@pytest.mark.parametrize("problem", TlsProblem)
def test_every_problem_has_advice(problem: TlsProblem) -> None:
    error = TlsRefused("hub:1", problem, "detail")
    assert error.advice()
    assert "hub:1" in str(error)
    assert "detail" in str(error)
