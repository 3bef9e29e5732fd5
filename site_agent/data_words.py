"""What a study reads of a patient, in plain words: for the steward who decides, and for the public log."""

from consortium.contract.study_data import BinaryLabel, ClassesLabel, ImagingData, TabularData

_MODALITIES = {
    "CR": "X-ray", "CT": "CT", "DX": "X-ray", "ES": "endoscopy", "GM": "microscopy", "MG": "mammography", "MR": "MRI",
    "NM": "nuclear medicine", "OP": "eye", "OPT": "eye tomography", "OT": "other", "PT": "PET", "RF": "fluoroscopy",
    "SM": "slide", "US": "ultrasound", "XA": "angiography", "XC": "photographic",
}  # fmt: skip


def sentence_of(data: TabularData | ImagingData) -> str:
    """What goes into training, to follow "training steps of a network on"."""
    if isinstance(data, TabularData):
        return f"the columns {', '.join(data.features)} and {data.label.name}"
    words = f"{_images(data)} ({data.modality}, {_counted(data.channels, 'channel')}), "
    if data.spacing is not None:
        words += f"resampled to {_times(data.spacing)} mm and "
    words += f"cut or padded to {_times(data.shape)}, each with {_label(data)}; nothing else of a file is used"
    seen = []
    if data.augmentation is not None:
        seen.append(f"changed at random ({', '.join(one.transform for one in data.augmentation)})")
    if data.patch is not None:
        patches = "a patch" if data.patch.per_record == 1 else f"{data.patch.per_record} patches"
        seen.append(f"seen in {patches} of {_times(data.patch.shape)}")
    return f"{words}; in every training step a record is {' and '.join(seen)}" if seen else words


def columns_of(data: TabularData | ImagingData) -> tuple[str, ...]:
    """What the log says that a hospital prepared: the columns of a table, or phrases of at most 64 letters."""
    if isinstance(data, TabularData):
        return tuple(data.features)
    return (
        f"{_images(data)} ({data.modality}), {_counted(data.channels, 'channel')}"[:64],
        f"cut or padded to {_times(data.shape)}"[:64],
        f"with {_label(data)}"[:64],
    )


def _images(data: ImagingData) -> str:
    return f"{_MODALITIES[data.modality]} {'images' if len(data.shape) == 2 else 'volumes'}"


def _label(data: ImagingData) -> str:
    label = data.label
    if isinstance(label, BinaryLabel):
        return f"a label{_named(label.name)}: above {label.positive_above:g} or not"
    if isinstance(label, ClassesLabel):
        return f"a label{_named(label.name)} of {len(label.values)} values"
    return f"a mask of {len(label.values)} values"


def _named(name: str | None) -> str:
    return f" {name}" if name else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
