"""S-20: a study, or whoever can write to a disk, wants this hospital to run code that the hospital did not register.

A study names a word; what stands behind it is the hospital's file with that SHA-256, or nothing. Tried: rows
s20 of `mutations.py`, which are None for a name that nobody registered in `objection_to_client_algo`, and
`read_client_algo` without its comparison of digests.
"""

import hashlib

import pytest

from consortium.contract.messages import Refusal
from site_agent.client_algo_file import FILE_BYTES_MAX, ClientAlgoRefused, made_client_algo, read_client_algo
from site_agent.site_file import ClientAlgoFile
from tests.fakes.client_algos import SOURCE, register, registered, study_with_client_algo
from tests.fakes.site_world import hospital


async def test_a_name_that_this_hospital_has_not_registered(tmp_path):
    study = study_with_client_algo(client_algo="another-trainer")
    async with hospital(tmp_path, study, ready=False, allow_no_privacy=True) as world:
        register(tmp_path)
        answer = await world.prepare()
    assert isinstance(answer, Refusal)
    assert answer.rule == "client_algos"


async def test_a_file_that_was_changed_after_it_was_registered(tmp_path):
    async with hospital(tmp_path, study_with_client_algo(), ready=False, allow_no_privacy=True) as world:
        path = register(tmp_path)
        mark = tmp_path / "it-ran"
        path.write_text(SOURCE + f"\nopen({str(mark)!r}, 'w').close()\n")
        answer = await world.prepare()
        assert isinstance(answer, Refusal)
        assert (answer.rule, str(tmp_path) in answer.explanation) == ("client_algos", False)
        known = hashlib.sha256(SOURCE.encode()).hexdigest()
        with pytest.raises(ClientAlgoRefused, match=f"allowed: the one in site.yaml, {known}"):
            made_client_algo(world.home.config.client_algos["ward-trainer"])
    assert not mark.exists()


async def test_neither_does_a_hospital_that_allows_no_study_without_privacy_run_it(tmp_path):
    async with hospital(tmp_path, study_with_client_algo(), ready=False) as world:
        register(tmp_path)
        answer = await world.prepare()
    assert answer.rule == "allow_no_privacy"


def test_a_file_that_is_gone_or_too_long(tmp_path):
    entry = ClientAlgoFile.model_validate(registered(tmp_path))
    with pytest.raises(ClientAlgoRefused, match="cannot be read"):
        read_client_algo(entry.model_copy(update={"file": str(tmp_path / "gone.py")}))
    (tmp_path / "ward_trainer.py").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ClientAlgoRefused, match="of more than"):
        read_client_algo(entry)
