"""What a network is built for: the shape of one record, and how many outputs there are for each label."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordShape:
    """The shape of one record; of a table its number of inputs stands as channels without sides."""

    channels: int
    sides: tuple[int, ...]  # (), (height, width), or the three of a volume
    outputs: int

    @property
    def axes(self) -> int:
        """2 for pictures, 3 for volumes."""
        return len(self.sides)
