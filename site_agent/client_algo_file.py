"""The hospital's own class of `monai.fl.client.ClientAlgo`: a Python file or a distribution, by SHA-256 in site.yaml.

This is the one place where the agent runs code that did not come with it. Nothing outside the hospital has a say in
which: a study names a word, and the hospital's file says which class stands behind it, or none. What is run are the
very bytes that were hashed; of a distribution, the files that were. What either imports besides is installed beside the
agent and not covered by the digest.
"""

import hashlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from consortium.contract.study import StudyFile
from site_agent.errors import SiteError
from site_agent.plugin_distribution import DistributionRefused, Installed, imported, installed
from site_agent.policy import Refuse
from site_agent.site_file import ClientAlgoFile

if TYPE_CHECKING:
    from monai.fl.client.client_algo import ClientAlgo

FILE_BYTES_MAX = 1 << 20
NOT_REGISTERED = Refuse("client_algos", "this hospital has no client algorithm of that name")
NOT_THE_FILE = Refuse("client_algos", "this hospital's client algorithm is not the one it registered")


class ClientAlgoRefused(SiteError):
    """The file or the class is not what site.yaml says. Whose fault: whoever changed one and not the other."""

    def __init__(self, found: str, allowed: str, advice: str) -> None:
        super().__init__(f"client_algos: found {found}; allowed: {allowed}")
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


def objection_to_client_algo(study: StudyFile, client_algos: Mapping[str, ClientAlgoFile]) -> Refuse | None:
    """Why the class that a study asks for is not run here; None if it is, or if the study asks for none.

    Nothing is run to find out: the file's bytes are read and hashed.
    """
    name = study.training.client_algo
    if name is None:
        return None
    registered = client_algos.get(name)
    if registered is None:
        return NOT_REGISTERED
    try:
        if registered.distribution is not None:
            read_distribution(registered)
        else:
            read_client_algo(registered)
    except (ClientAlgoRefused, DistributionRefused):
        return NOT_THE_FILE  # which file, and what is wrong with it, is for `site-agent check`
    return None


def read_distribution(registered: ClientAlgoFile) -> Installed:
    """The distribution, if it is the registered one, file by file; raises DistributionRefused."""
    assert registered.distribution is not None  # whoever calls this has looked
    found = installed(registered.distribution)
    if found.version != registered.version or found.sha256 != registered.sha256:
        raise DistributionRefused(
            f"{found.name} {found.version} with SHA-256 {found.sha256}",
            f"the one in site.yaml, {registered.version} with {registered.sha256}",
            "Install the one that was looked at; or look at this one: `site-agent plugin-digest` prints its lines.",
        )
    return found


def read_client_algo(registered: ClientAlgoFile) -> bytes:
    """The file's bytes, if they are those of its digest; raises ClientAlgoRefused."""
    assert registered.file is not None  # whoever calls this has looked
    path = Path(registered.file)
    try:
        with path.open("rb") as file:
            source = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        advice = "Correct the path in site.yaml, or the file's permissions."
        raise ClientAlgoRefused(f"{path}, which cannot be read ({error.strerror})", "a file", advice) from error
    if len(source) > FILE_BYTES_MAX:
        advice = "Name the one file with the class; what it imports can be installed beside the agent."
        raise ClientAlgoRefused(f"{path} of more than {FILE_BYTES_MAX} bytes", "a Python file", advice)
    found = hashlib.sha256(source).hexdigest()
    if found != registered.sha256:
        advice = "Put the file back that was looked at; or look at this one, and write its SHA-256 into site.yaml."
        raise ClientAlgoRefused(f"{path} with SHA-256 {found}", f"the one in site.yaml, {registered.sha256}", advice)
    return source


def made_client_algo(registered: ClientAlgoFile) -> "ClientAlgo":
    """An object of the registered class, with the arguments of site.yaml. The hospital's file is run.

    Raises:
        ClientAlgoRefused: The file is another one, cannot be run, or has no such class; or the class is none of
            monai.fl, or does not take the arguments.
    """
    from monai.fl.client.client_algo import ClientAlgo  # noqa: PLC0415 - MONAI

    module = _run_distribution(registered) if registered.distribution is not None else _run_file(registered)
    kind = getattr(module, registered.class_name, None)
    if not isinstance(kind, type) or not issubclass(kind, ClientAlgo):
        found = f"no class {registered.class_name} of monai.fl in {registered.where}"
        raise ClientAlgoRefused(found, "a class of monai.fl.client.ClientAlgo", "Correct class in site.yaml.")
    try:
        return kind(**registered.args)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises
        found = f"{registered.class_name}, which fails with {type(error).__name__} when it is made"
        raise ClientAlgoRefused(found, "a class that takes the args of site.yaml", _BY_ITSELF) from None


_BY_ITSELF = "Run it by itself in the agent's environment: its own words are not printed here."


def _run_file(registered: ClientAlgoFile) -> types.ModuleType:
    """The file, run as a module of its own; raises ClientAlgoRefused."""
    source, path = read_client_algo(registered), str(registered.file)
    module = types.ModuleType(f"client_algo_{registered.sha256[:16]}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where classes look up the names of their annotations
    try:
        exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - the hospital's own, by its digest
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises
        found = f"{path}, which fails with {type(error).__name__}"
        raise ClientAlgoRefused(found, "a file that can be run", _BY_ITSELF) from None
    return module


def _run_distribution(registered: ClientAlgoFile) -> types.ModuleType:
    """The module of the distribution, looked at file by file right before; raises what those raise who look."""
    found = read_distribution(registered)
    assert registered.module is not None  # with a distribution
    try:
        return imported(found, registered.module)
    except DistributionRefused:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises
        said = f"{registered.where}, which fails with {type(error).__name__}"
        raise ClientAlgoRefused(said, "a module that can be imported", _BY_ITSELF) from None
