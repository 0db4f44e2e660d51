"""A run that is taken up again must be the run that was begun."""

import json

import pytest

from aizheimer import api
from aizheimer.errors import RunFolderError
from tests.unit.api.test_several import FEW


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"keep": ["fox"]}, r"concept.keep was \['dog'\], is \['fox'\]"),
        ({"keep": ["dog"], "anchor": "fox"}, "concept.anchor was '', is 'fox'"),
        ({"concept": "fox", "keep": ["dog"]}, "concept.target was 'cat', is 'fox'"),
    ],
)
def test_a_finished_run_is_not_resumed_for_another_concept(tiny_backbone, tmp_path, other, said):
    """A closed form has no checkpoint that would know: it would replace the edit below its own figures."""
    words = {"method": "uce", "out": tmp_path / "run", **FEW}
    made = api.forget(tiny_backbone, "cat", keep=["dog"], **words)
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    asked = {"concept": "cat", **other}
    with pytest.raises(RunFolderError, match=rf"was started for another concept \({said}\); resume with the same"):
        api.forget(tiny_backbone, resume=True, **asked, **words)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    again = api.forget(tiny_backbone, "cat", keep=["dog"], resume=True, **words)
    assert again.digest == made.digest


def test_a_run_of_before_the_concept_was_written_down_is_resumed(tiny_backbone, tmp_path):
    words = {"method": "uce", "out": tmp_path / "run", **FEW}
    made = api.forget(tiny_backbone, "cat", **words)
    file = tmp_path / "run" / "env.json"
    content = json.loads(file.read_text())
    assert content.pop("concept")["target"] == "cat"
    file.write_text(json.dumps(content))
    assert api.forget(tiny_backbone, "cat", resume=True, **words).digest == made.digest
