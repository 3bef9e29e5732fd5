"""The `data` section of a study: what a hospital's records must look like to take part, as a table or as images.

The two kinds are told apart by `kind` and answer the same questions: the shape of one record as the network sees it,
how many outputs the network has, and the shape of one label. Every constant in here is public and comes from the
literature or from the study's design, never from the patients: computing it from them would cost privacy.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, Field

from consortium.contract.errors import shown
from consortium.contract.fields import ColumnName, Line
from consortium.contract.record_views import Augmentation, Patch, misfits_of_patch, misfits_of_transforms
from consortium.contract.schema import Finding, Rule, Section
from consortium.contract.subgroups import Category

RECORD_VALUES_MAX = 2**26
"""The most numbers of one record, all channels together: 256 MiB as float32."""

BINARY, CLASSES, MASK = "binary", "classes", "mask"
"""The types of labels: one of two, one of several, and one of several at every place of an image."""


# --- of both kinds -------------------------------------------------------------------------------------------------


class Scale(Section):
    """A public constant for the mean and the standard deviation of a quantity: (x - mean) / std goes into the network.

    Taken from the literature, never computed from the patients of the study: that would cost privacy.
    """

    mean: float
    std: Annotated[float, Gt(0)]


def _some_are_left(test_fraction: float, validation_fraction: float | None) -> Iterator[Finding]:
    if validation_fraction is not None and test_fraction + validation_fraction >= 1:
        yield Finding(
            "validation_fraction",
            shown(validation_fraction),
            f"less than {1 - test_fraction:g}, so that with test_fraction there is somebody left to train on",
        )


class Split(Section):
    """How each hospital sets patients aside: for testing, and for choosing the model that is tested."""

    test_fraction: Annotated[float, Gt(0), Lt(1)]
    validation_fraction: Annotated[float, Gt(0), Lt(1)] | None = None  # see `evaluation.keep_best`
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    stratify: bool

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("test_fraction", "validation_fraction"), check=_some_are_left),)

    def sizes(self, patients: int) -> tuple[int, int]:
        """How many of so many patients are set aside by the study's own split: for testing, and for validation."""
        return math.ceil(self.test_fraction * patients), math.ceil((self.validation_fraction or 0) * patients)


def _range_rises(bounds: tuple[float, float]) -> Iterator[Finding]:
    if bounds[0] >= bounds[1]:
        yield Finding("range", f"{shown(bounds[0])} to {shown(bounds[1])}", "the smaller bound first, then the larger")


def _mean_in_range(bounds: tuple[float, float], scale: Scale | None) -> Iterator[Finding]:
    if scale is not None and bounds[0] < bounds[1] and not bounds[0] <= scale.mean <= bounds[1]:
        yield Finding(
            "scale.mean", shown(scale.mean), f"a number within the range, {shown(bounds[0])} to {shown(bounds[1])}"
        )


def _values_differ(values: tuple[int | str, ...]) -> Iterator[Finding]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding(f"values[{index}]", f"{shown(value)} a second time", "every value once")
        if isinstance(value, str) != isinstance(values[0], str):
            yield Finding(f"values[{index}]", shown(value), "values all of one sort: whole numbers, or text")


# --- tables --------------------------------------------------------------------------------------------------------


def _absent_has_mean(scale: Scale | None, absent: float | None) -> Iterator[Finding]:
    if absent is not None and scale is None:
        yield Finding("absent", shown(absent), "only together with scale: an absent value is replaced by scale.mean")


class NumberFeature(Section):
    """A measured quantity; one input of the network."""

    type: Literal["number"]
    unit: Line | None = None
    range: tuple[float, float]  # lowest and highest value that is not an error of entry
    scale: Scale | None = None  # without it the value goes in as it is
    absent: float | None = None  # a value that stands for "not measured"

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("range",), check=_range_rises),
        Rule(reads=("range", "scale"), check=_mean_in_range),
        Rule(reads=("scale", "absent"), check=_absent_has_mean),
    )


class CategoryFeature(Section):
    """One of a few values; one input of the network for each value but the first."""

    type: Literal["category"]
    values: Annotated[tuple[Category, ...], Len(2, 1000)]

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("values",), check=_values_differ),)


Feature: TypeAlias = Annotated[NumberFeature | CategoryFeature, Field(discriminator="type")]


def _by_name(features: Mapping[str, Feature]) -> Mapping[str, Feature]:
    # The order of keys in a file means nothing, so the order of the network's inputs must not depend on it.
    return dict(sorted(features.items()))


class Label(Section):
    """What is predicted: whether the value in a column lies above a bound."""

    name: ColumnName
    type: Literal["binary"]
    positive_above: float


def _columns_differ(patient_id: str, features: Mapping[str, Feature], label: Label) -> Iterator[Finding]:
    if label.name in features:
        yield Finding("label.name", shown(label.name), "a column that is not among the features")
    if patient_id in features:
        yield Finding("patient_id", shown(patient_id), "a column that is not among the features")
    if patient_id == label.name:
        yield Finding("patient_id", shown(patient_id), "a column other than the label's")


class TabularData(Section):
    """A table: one row a record, one column a feature."""

    kind: Literal["tabular"]
    patient_id: ColumnName  # the unit of privacy; a hospital may name its own column in site.yaml
    features: Annotated[Mapping[ColumnName, Feature], Len(1, 10_000), AfterValidator(_by_name)]
    label: Label
    missing: Literal["drop"]
    minimum_patients: Annotated[int, Ge(1), Le(10_000_000)]
    split: Split
    patch: ClassVar[None] = None  # the network sees whole records

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("patient_id", "features", "label"), check=_columns_differ),)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The network's inputs in order: features by name, a category as `name=value` without its first value."""
        return input_names_of(self.features)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record as the network sees it: (inputs,)."""
        return (len(self.input_names),)

    @property
    def outputs(self) -> int:
        """Outputs of the network: one, the logit of the label."""
        return 1

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of one record's label: a single number."""
        return ()


def input_names_of(features: Mapping[str, Feature]) -> tuple[str, ...]:
    """The inputs of a network on these features, in order; see `TabularData.input_names`."""
    names: list[str] = []
    for name, feature in features.items():
        if isinstance(feature, CategoryFeature):
            names += [f"{name}={value}" for value in feature.values[1:]]
        else:
            names.append(name)
    return tuple(names)


# --- images --------------------------------------------------------------------------------------------------------


Modality: TypeAlias = Literal[
    "CR", "CT", "DX", "ES", "GM", "MG", "MR", "NM", "OP", "OPT", "OT", "PT", "RF", "SM", "US", "XA", "XC"
]
"""Codes of DICOM (PS3.3, C.7.3.1.1.1) for what takes an image; OT is any other."""


def _one_scaling(scale: Scale | None, standardise: str | None) -> Iterator[Finding]:
    if scale is not None and standardise is not None:
        yield Finding("standardise", standardise, "scale or standardise, not both")


class Intensity(Section):
    """The numbers an image may hold, and how they become the network's.

    Standardising every image by its own mean and deviation reads one record alone, so it says nothing about any other
    patient and costs no privacy; the mean over patients would.
    """

    range: tuple[float, float]  # lowest and highest value that is not an error
    scale: Scale | None = None
    standardise: Literal["each-image"] | None = None  # by the image's own mean and deviation, each channel for itself

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("range",), check=_range_rises),
        Rule(reads=("range", "scale"), check=_mean_in_range),
        Rule(reads=("scale", "standardise"), check=_one_scaling),
    )


class BinaryLabel(Section):
    """Whether the number that a record has lies above a bound."""

    type: Literal["binary"]
    positive_above: float
    name: ColumnName | None = None  # of what is predicted, for people and as the usual column


class ClassesLabel(Section):
    """Which of several values a record has."""

    type: Literal["classes"]
    values: Annotated[tuple[Category, ...], Len(2, 1000)]
    name: ColumnName | None = None

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("values",), check=_values_differ),)


class MaskLabel(Section):
    """A value at every place of the image; the first one is the background."""

    type: Literal["mask"]
    values: Annotated[tuple[Annotated[int, Ge(0), Le(65_535)], ...], Len(2, 256)]

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("values",), check=_values_differ),)


ImageLabel: TypeAlias = Annotated[BinaryLabel | ClassesLabel | MaskLabel, Field(discriminator="type")]


def _label_fits_task(task: str, label: BinaryLabel | ClassesLabel | MaskLabel) -> Iterator[Finding]:
    if (task == "segmentation") != (label.type == MASK):
        yield Finding(
            "label.type", label.type,
            "mask with the task segmentation" if task == "segmentation" else f"{BINARY} or {CLASSES} with {task}",
        )  # fmt: skip


def _axes_have_spacing(shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> Iterator[Finding]:
    if spacing is not None and len(spacing) != len(shape):
        yield Finding("spacing", f"{len(spacing)} numbers for {len(shape)} axes", "a number for each axis of shape")


def _record_is_bounded(channels: int, shape: tuple[int, ...]) -> Iterator[Finding]:
    values = channels * math.prod(shape)
    if values > RECORD_VALUES_MAX:
        yield Finding("shape", f"{values} numbers in a record", f"at most {RECORD_VALUES_MAX}, all channels together")


def _masks_without_strata(label: BinaryLabel | ClassesLabel | MaskLabel, split: Split) -> Iterator[Finding]:
    if split.stratify and label.type == MASK:
        yield Finding("split.stratify", "true", "false with masks: a patient has no one label to divide by")


class ImagingData(Section):
    """Images or volumes, each with one label or with a mask."""

    kind: Literal["imaging"]
    task: Literal["classification", "segmentation"]
    modality: Modality
    channels: Annotated[int, Ge(1), Le(16)]
    # One record: rows and columns, or the axes to the right, to the front and upwards.
    shape: Annotated[tuple[Annotated[int, Ge(8), Le(1024)], ...], Len(2, 3)]
    # Millimetres along each axis, to which records are resampled; without it pixels are taken as they are.
    spacing: Annotated[tuple[Annotated[float, Ge(0.01), Le(100)], ...], Len(2, 3)] | None = None
    intensity: Intensity
    label: ImageLabel
    minimum_patients: Annotated[int, Ge(1), Le(10_000_000)]
    split: Split
    augmentation: Augmentation | None = None  # what training does to records, in order; evaluation does not
    patch: Patch | None = None  # without it the network sees whole records

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("task", "label"), check=_label_fits_task),
        Rule(reads=("shape", "spacing"), check=_axes_have_spacing),
        Rule(reads=("channels", "shape"), check=_record_is_bounded),
        Rule(reads=("label", "split"), check=_masks_without_strata),
        Rule(reads=("shape", "augmentation"), check=misfits_of_transforms),
        Rule(reads=("task", "channels", "shape", "patch"), check=misfits_of_patch),
    )

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Shape of one record as it is read: (channels, *shape)."""
        return (self.channels, *self.shape)

    @property
    def record_label_shape(self) -> tuple[int, ...]:
        """Shape of one record's label as it is read: a single number, or `shape` of a mask."""
        return self.shape if isinstance(self.label, MaskLabel) else ()

    @property
    def network_sides(self) -> tuple[int, ...]:
        """Sides of what the network sees: of a patch, or of the whole record."""
        return self.shape if self.patch is None else self.patch.shape

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the network sees of a record: (channels, *network_sides)."""
        return (self.channels, *self.network_sides)

    @property
    def outputs(self) -> int:
        """Outputs of the network, for each label: one logit of a binary label, else one for each value."""
        return 1 if isinstance(self.label, BinaryLabel) else len(self.label.values)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the label of what the network sees: a single number, or `network_sides` of a mask."""
        return self.network_sides if isinstance(self.label, MaskLabel) else ()

    @property
    def label_values(self) -> Sequence[int | str]:
        """What the network's outputs stand for, in order; empty for a binary label."""
        return () if isinstance(self.label, BinaryLabel) else self.label.values


StudyData: TypeAlias = Annotated[TabularData | ImagingData, Field(discriminator="kind")]
"""The `data` section of a study; its members are told apart by `kind`."""
