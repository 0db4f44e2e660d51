import pytest

from tests.unit.detectors.builders import save_clip, save_colour_judge


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory):
    return save_colour_judge(tmp_path_factory.mktemp("judges") / "colour", temperature=2.0, reject_threshold=0.6)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "clip")
