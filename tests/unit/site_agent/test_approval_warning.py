"""`studies approve` says at once when the hospital's own limits would not let the approved study train."""

import pytest
from typer.testing import CliRunner

from site_agent import app as app_module
from site_agent import deciding
from site_agent.cli import app
from site_agent.commands import studies


@pytest.mark.parametrize("nothing", [False, True])
@pytest.mark.parametrize("objection", [None, "this hospital's own limits do NOT allow it (max_epsilon_total)."])
def test_it_warns_and_the_approval_stands(tmp_path, monkeypatch, objection, nothing):
    async def decide(*_, **__):
        return deciding.Decided(digest="d" * 64)

    monkeypatch.setattr(deciding, "decide_study", decide)
    monkeypatch.setattr(studies, "_steward_key", lambda *_: None)
    monkeypatch.setattr(app_module, "objection_to", lambda *_: objection)
    monkeypatch.setattr(app_module, "promises_nothing", lambda *_: nothing)
    done = CliRunner().invoke(
        app, ["studies", "approve", "small-study", "--home", str(tmp_path), "--steward", "Dr A. Example"]
    )
    assert done.exit_code == 0
    assert f"Approved small-study, digest {'d' * 64}" in done.stdout
    assert ("nothing will be trained here" in done.stderr) == (objection is not None)
    assert ("no patient has differential privacy" in done.stderr) == nothing
    assert objection is None or objection in done.stderr
