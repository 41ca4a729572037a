"""The folder of a test's store, and real builds of a small folder to damage."""

import shutil

import pytest

from support.fakestore import fast_folder, run_build, truncated_jpeg, write_photos


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Three real builds: an image more each time, one that cannot be decoded."""
    folder = tmp_path_factory.mktemp("built")
    for count in (6, 7, 8):
        images = {f"{number}.jpg": number for number in range(count)}
        write_photos(folder / "photos", images, broken={"bad.jpg": truncated_jpeg(99)})
        run_build(folder / "store", folder / "photos")
    return folder / "store"


@pytest.fixture
def root(tmp_path):
    """Where a test's own store is."""
    return tmp_path / "store"


@pytest.fixture
def copy(built):
    """A copy of the real builds that a test may damage."""
    with fast_folder() as folder:
        shutil.copytree(built, folder / "store")
        yield folder / "store"
