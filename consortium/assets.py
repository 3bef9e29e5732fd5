"""Files that ship with the package: studies, and the sites and data of the demo."""

from importlib import resources
from pathlib import Path

from consortium.errors import HomeInvalid, StudyFileMissing

_PACKAGED = Path("assets")
_WORKING_COPY = Path(__file__).resolve().parent.parent / "configs"


def heart_disease() -> Path:
    """The folder of the heart-disease study: inside an installed wheel, or `configs/` of a working copy."""
    for folder in _folders():
        if (folder / "heart-disease" / "study.yaml").is_file():
            return folder / "heart-disease"
    raise HomeInvalid("the heart-disease study did not come with this installation; name one with --study")


def deployment_file(name: str) -> Path:
    """A file of `configs/deploy`, such as the lock of what a hospital installs; raises HomeInvalid."""
    for folder in _folders():
        if (folder / "deploy" / name).is_file():
            return folder / "deploy" / name
    raise HomeInvalid(f"{name} did not come with this installation; install the release again")


def study_file(wanted: Path) -> Path:
    """The study file a person means: a path, or the name of one that ships with the package.

    | wanted | result |
    |---|---|
    | a file that exists | that file |
    | `heart-disease` | the demo's own study |
    | `heart-disease-distributed` | `studies/heart-disease-distributed.yaml`, wherever the command is typed |

    Raises:
        StudyFileMissing: It is neither.
    """
    if wanted.is_file():
        return wanted
    shipped = _shipped()
    found = shipped.get(str(wanted))
    if found is None:
        raise StudyFileMissing(wanted, tuple(shipped))
    return found


def _shipped() -> dict[str, Path]:
    """By name, every study that is here."""
    found = {path.stem: path for folder in _folders() for path in sorted((folder / "studies").glob("*.yaml"))}
    return {"heart-disease": heart_disease() / "study.yaml"} | found


def _folders() -> tuple[Path, Path]:
    return Path(str(resources.files("consortium"))) / _PACKAGED, _WORKING_COPY
