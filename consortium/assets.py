"""Files that ship with the package: the demo's study, its sites and its data."""

from importlib import resources
from pathlib import Path

from consortium.errors import HomeInvalid


def heart_disease() -> Path:
    """The folder of the heart-disease study: inside an installed wheel, or `configs/` of a working copy."""
    packaged = Path(str(resources.files("consortium"))) / "assets" / "heart-disease"
    working_copy = Path(__file__).resolve().parent.parent / "configs" / "heart-disease"
    for folder in (packaged, working_copy):
        if (folder / "study.yaml").is_file():
            return folder
    raise HomeInvalid("the heart-disease study did not come with this installation; name one with --study")
