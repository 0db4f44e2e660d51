"""Edits on disk: everything comes back, and damage is never loaded."""

import json

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits import ConceptRecord, Edit, Provenance, load_edit
from aizheimer.errors import EditError

CONCEPT = Concept("Santa Claus", anchor="old man", keep=("cat",))


@pytest.fixture
def edit():
    record = ConceptRecord.of(CONCEPT)
    extra = {"neighbours": [["cat", 0.5]]}
    provenance = Provenance(method="aizheimer", concept=record, base_fingerprint="0" * 16, seed=3, extra=extra)
    return Edit({"unet.a.weight": torch.randn(3, 2), "unet.b": torch.randn(4)}, provenance).scale(0.3)


def test_everything_comes_back(edit, tmp_path):
    assert edit.save(tmp_path / "run") == tmp_path / "run"
    found = load_edit(str(tmp_path / "run"))
    assert found.provenance == edit.provenance
    assert found.provenance.strength == 0.3
    assert found.provenance.concept.to_concept() == CONCEPT
    assert found.deltas.keys() == edit.deltas.keys()
    assert all(torch.equal(found.deltas[name], edit.deltas[name]) for name in edit.deltas)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["edit.json", "edit.safetensors"]


def test_provenance_says_what_made_it(edit):
    assert {"aizheimer", "torch", "diffusers", "transformers", "python"} <= edit.provenance.versions.keys()
    assert edit.provenance.created.endswith("+00:00")


def test_saving_over_another_edit_replaces_it(edit, tmp_path):
    edit.save(tmp_path)
    edit.scale(2).save(tmp_path)
    assert load_edit(tmp_path).provenance.strength == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["edit.json", "edit.safetensors"])
def test_a_missing_file_is_named(edit, tmp_path, name):
    edit.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(EditError, match=f"{name} is missing"):
        load_edit(tmp_path)


def test_one_flipped_bit_is_noticed(edit, tmp_path):
    edit.save(tmp_path)
    path = tmp_path / "edit.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(EditError, match="damaged or of another edit"):
        load_edit(tmp_path)


def test_halves_of_two_edits_are_noticed(edit, tmp_path):
    edit.save(tmp_path / "a")
    Edit({"unet.a.weight": torch.zeros(3, 2) + 1}, edit.provenance).save(tmp_path / "b")
    (tmp_path / "a" / "edit.json").write_bytes((tmp_path / "b" / "edit.json").read_bytes())
    with pytest.raises(EditError, match="another edit"):
        load_edit(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: "{", "damaged"),
        (lambda r: "[]", "not a record"),
        (lambda r: json.dumps(r | {"format": 99}), "format 99, wanted 1"),
        (lambda r: json.dumps(r | {"provenance": r["provenance"] | {"seed": "x"}}), "seed"),
        (lambda r: json.dumps(r | {"provenance": None}), "provenance"),
    ],
)
def test_a_damaged_record_is_one_line(edit, tmp_path, change, said):
    edit.save(tmp_path)
    path = tmp_path / "edit.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(EditError, match=said) as error:
        load_edit(tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_tensor_file_with_the_right_hash_is_refused(edit, tmp_path):
    import hashlib

    edit.save(tmp_path)
    (tmp_path / "edit.safetensors").write_bytes(b"junk")
    record = json.loads((tmp_path / "edit.json").read_text())
    record["sha256"] = hashlib.sha256(b"junk").hexdigest()
    (tmp_path / "edit.json").write_text(json.dumps(record))
    with pytest.raises(EditError, match="not a safetensors file"):
        load_edit(tmp_path)
