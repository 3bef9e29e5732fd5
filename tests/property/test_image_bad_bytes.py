"""Image files with any bytes changed or cut off: an image within its bounds, or one reason, and nothing else."""

import functools
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from site_agent.imaging.dicom import read_dicom_image, read_header
from site_agent.imaging.nifti import read_nifti
from site_agent.imaging.raster import read_raster
from site_agent.imaging.records import Unusable
from site_agent.imaging.safety import VOLUME_VALUES_MAX
from tests.fakes.imaging_study import write_dicom, write_nifti, write_png


def dicom(path):
    write_dicom(path, patient="P1", study="1.2", series="1.2.3", pixels=np.full((9, 7), 5))


FORMATS = {
    "picture.png": (write_png, read_raster),
    "volume.nii": (lambda path: write_nifti(path, shape=(5, 4, 3)), lambda path: read_nifti((path,))),
    "volume.nii.gz": (lambda path: write_nifti(path, shape=(5, 4, 3)), lambda path: read_nifti((path,))),
    "film.dcm": (dicom, read_dicom_image),
    "header.dcm": (dicom, read_header),
}


@functools.cache
def original(name: str, folder: Path) -> bytes:
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    FORMATS[name][0](folder / name)
    return (folder / name).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bytes")


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_bytes(name, folder, data):
    content = bytearray(original(name, folder))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = folder / f"changed-{name}"
    path.write_bytes(bytes(content))
    try:
        found = FORMATS[name][1](path)
    except Unusable as unusable:
        assert str(folder) not in str(unusable)  # noqa: PT017 - either outcome is right
        return
    if found is not None and name != "header.dcm":
        assert found.values.dtype == np.float32
        assert 1 <= found.values.size <= VOLUME_VALUES_MAX
