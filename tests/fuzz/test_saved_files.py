"""Fuzz what programs save: edit folders, hooks, LoRA files and folders of pictures."""

import hashlib
import io
import json
import os
import pickle
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from aizheimer._registry import HOOKS
from aizheimer.backbones.base import backbone_for
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.concepts import Concept
from aizheimer.data.captioned import check_captioned, read_captioned
from aizheimer.data.images import check_picture_folder, read_images
from aizheimer.edits import Edit, load_edit
from aizheimer.edits.imports import import_edit
from aizheimer.edits.lora_names import kohya_name, peft_name
from aizheimer.edits.provenance import ConceptRecord, Provenance
from tests.fuzz.values import changed_bytes, changed_record, nested, texts
from tests.fuzz.watch import cases, held_to
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import tiny_pipeline, tiny_world

QUIET = {"suppress_health_check": list(HealthCheck)}
CAT = Concept("cat")
BACKBONE = backbone_for(tiny_pipeline(), world=tiny_world())
NAMES = [f"{part}.{name}" for part, network in BACKBONE.networks.items() for name, _ in network.named_parameters()]
SHAPES = {
    f"{part}.{name}": value.shape for part, net in BACKBONE.networks.items() for name, value in net.named_parameters()
}
LAYERS = [name.removesuffix(".weight") for name in NAMES if name.endswith(("to_k.weight", "to_v.weight", "fc1.weight"))]
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
ATTENDED = [name for name in NAMES if name.endswith("attn2.to_k.weight")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def emptied(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@st.composite
def tensor(draw, shape=None):
    """Return a small tensor of any kind, sometimes with values that are no numbers."""
    if shape is None:
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
    made = torch.zeros(tuple(shape)) + draw(st.sampled_from([0.0, 1e-3, 1.0, -2.0, float("nan"), float("inf")]))
    return made.to(draw(st.sampled_from(DTYPES)) if draw(st.integers(0, 3)) == 0 else torch.float32)


own_names = st.sampled_from(NAMES)


@st.composite
def deltas(draw):
    """Return changes of weights, mostly as an edit has them."""
    found = {}
    for name in draw(st.lists(own_names, min_size=0, max_size=3)):
        found[name] = draw(tensor(SHAPES[name])) if draw(st.integers(0, 3)) else draw(tensor())
    if draw(st.integers(0, 3)) == 0:
        found[draw(texts.filter(lambda text: "\ud800" not in text))] = draw(tensor())
    return found


def record_of(hook=None):
    provenance = Provenance(
        method="fuzz",
        concept=ConceptRecord(target="cat"),
        base_fingerprint=BACKBONE.fingerprint(),
        text_fingerprint=module_fingerprint(BACKBONE.pipe.text_encoder),
    )
    record = {"format": 1 if hook is None else 2, "sha256": "", "provenance": provenance.model_dump(mode="json")}
    return record if hook is None else {**record, "hook": hook}


def write_edit(folder, tensors, record, *, seal=True):
    content = save(tensors)
    (emptied(folder) / "edit.safetensors").write_bytes(content)
    if seal and isinstance(record, dict):
        record = {**record, "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "edit.json").write_text(json.dumps(record), encoding="utf-8", errors="surrogatepass")
    return folder


SEEN = {}
"""The pipeline as the last case left it, which is what the next one finds: half of what a case costs is to look."""


def use(folder):
    """Read an edit, put it on and take it off: the pipeline is what it was, whatever happened."""
    edit = load_edit(folder)
    before = {**(SEEN or snapshot(BACKBONE.pipe)), "random": torch.get_rng_state()}
    try:
        assert isinstance(edit.digest, str)
        assert edit.size_bytes >= 0
        edit.scale(0.5)
        with edit.applied(BACKBONE.pipe):
            assert edit.mergeable in (True, False)
    finally:
        after = snapshot(BACKBONE.pipe)
        SEEN.update(after)
        assert same_snapshot(before, after)


@given(tensors=deltas(), record=st.just(record_of()) | changed_record(record_of()), seal=st.integers(0, 9))
@settings(max_examples=cases("edits") - cases("edits") // 4, **QUIET)
def test_edit_folders(folder, tensors, record, seal):
    run = write_edit(folder / "run", tensors, record, seal=seal > 0)
    with held_to(folder):
        use(run)


SAVED = {}


@given(data=st.data(), name=st.sampled_from(["edit.json", "edit.safetensors"]))
@settings(max_examples=cases("edits") // 4, **QUIET)
def test_damaged_edit_folders(folder, data, name):
    if not SAVED:
        edit = Edit({NAMES[0]: torch.ones(SHAPES[NAMES[0]])}, Provenance.model_validate(record_of()["provenance"]))
        edit.save(folder / "good")
        SAVED.update({path.name: path.read_bytes() for path in (folder / "good").iterdir()})
    run = emptied(folder / "run")
    for file, content in SAVED.items():
        (run / file).write_bytes(content)
    (run / name).write_bytes(data.draw(changed_bytes(SAVED[name])))
    with held_to(folder):
        use(run)


HOOK_SETTINGS = {
    "negative-prompt": {"words": "cat"},
    "sld": {
        "words": "cat",
        "scale": 2000.0,
        "threshold": 0.025,
        "momentum_scale": 0.5,
        "momentum_beta": 0.7,
        "warmup": 7,
    },
    "safree": {"words": ["cat"], "alpha": 0.01, "filter_steps": 10},
    "adavd": {"layers": [ATTENDED[0].split(".", 1)[1].rsplit(".", 2)[0]], "slope": 100.0, "centre": 0.9, "height": 2.0},
    "judge-filter": {"judge": "no-such-folder", "target": "cat", "threshold": 0.5},
    "spm": {"words": ["cat"], "gate": "both"},
    "erasers": {},
    "stacked": {"parts": [{"name": "negative-prompt", "settings": {"words": "cat"}, "strength": 1.0}]},
}


@given(data=st.data(), name=st.sampled_from(HOOKS.names()) | texts)
@settings(max_examples=cases("hooks"), **QUIET)
def test_hooks(folder, data, name):
    own = HOOK_SETTINGS.get(name, {})
    chosen = data.draw(st.just(own) | changed_record(own) | nested())
    hook = data.draw(st.just({"name": name, "settings": chosen}) | changed_record({"name": name, "settings": chosen}))
    names = st.sampled_from(["rows", "a.down", "a.up", "operators", f"{LAYERS[0].split('.', 1)[1]}.down"])
    tensors = {f"hook.{key}": data.draw(tensor()) for key in data.draw(st.lists(names, max_size=3))}
    run = write_edit(folder / "run", tensors, record_of(hook))
    with held_to(folder):
        use(run)


def test_every_hook_is_fuzzed():
    assert set(HOOK_SETTINGS) == set(HOOKS.names())


@st.composite
def lora(draw):
    """Return tensors by names of kohya, of PEFT and of networks, their shapes and kinds mostly wrong."""
    found = {}
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=2)):
        style = draw(st.sampled_from(["kohya", "peft", "weight", "wrapped"]))
        rows, columns = SHAPES[f"{layer}.weight"]
        rank = draw(st.integers(0, 3))
        fits = draw(st.integers(0, 2)) > 0
        down, up = (
            (draw(tensor([rank, columns])), draw(tensor([rows, rank]))) if fits else (draw(tensor()), draw(tensor()))
        )
        if style == "kohya":
            stem = kohya_name(layer, parts=BACKBONE.networks)
            found |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            if draw(st.booleans()):
                found[f"{stem}.alpha"] = draw(tensor([]) | tensor())
        elif style == "peft":
            found |= {f"{peft_name(layer)}.lora_A.weight": down, f"{peft_name(layer)}.lora_B.weight": up}
        else:
            prefix = "state_dict.module." if style == "wrapped" else ""
            found[f"{prefix}{layer}.weight"] = draw(tensor([rows, columns]) | tensor())
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(["model.diffusion_model.input_blocks.1.1.proj_in.weight", "betas", "x"]))
        found[name] = draw(tensor())
    return found


headers = st.none() | st.just({"prompts": "cat, dog", "rank": "1", "alpha": "1.0"})


@st.composite
def lora_bytes(draw):
    """Return a file's name and bytes: safetensors or a pickle of tensors, sometimes damaged."""
    tensors = draw(lora())
    if draw(st.booleans()):
        content, suffix = save(tensors, metadata=draw(headers)), ".safetensors"
    else:
        buffer, suffix = io.BytesIO(), draw(st.sampled_from([".pt", ".bin", ".ckpt"]))
        torch.save(
            draw(st.sampled_from([tensors, {"state_dict": tensors}, {"unet": {"a": tensors}, "step": 3}])), buffer
        )
        content = buffer.getvalue()
    if draw(st.integers(0, 3)) == 0:
        content = draw(changed_bytes(content))
    return draw(st.sampled_from([suffix, suffix, ".safetensors", ".txt"])), content


@given(file=lora_bytes(), gate=st.sampled_from(["auto", "none", "both", "tokens"]))
@settings(max_examples=cases("loras"), **QUIET)
def test_lora_files(folder, file, gate):
    path = emptied(folder / "lora") / f"file{file[0]}"
    path.write_bytes(file[1])
    with held_to(folder):
        edit, report = import_edit(path, BACKBONE, CAT, gate=gate)
        json.dumps(report.as_json(), allow_nan=False)
        edit.save(folder / "run")
        use(folder / "run")


def drawn(kind, *, size=(6, 4), mode="RGB", **options):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, kind, **options, **(
        {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))  # fmt: skip
    return buffer.getvalue()


PICTURES = [
    *(drawn("PNG"), drawn("PNG", mode="P"), drawn("PNG", mode="I;16"), drawn("PNG", mode="LA"), drawn("PNG", mode="1")),
    *(drawn("JPEG"), drawn("JPEG", mode="CMYK"), drawn("GIF", mode="P"), drawn("BMP"), drawn("TIFF"), drawn("PPM")),
    *(drawn("WEBP"), drawn("ICO", size=(16, 16)), drawn("TGA"), drawn("PCX"), drawn("TIFF", compression="tiff_lzw")),
    *(b"", b"a list of groceries", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\xff" * 20, b"%!PS-Adobe-3.0 EPSF-3.0\n"),
]
file_names = st.sampled_from(
    ["a.png", "b.jpg", ".hidden", "c", "d.png.exe", "é🎅.png", "e" * 200, "-rf.png", "f g.png"]
)
captions = nested(texts | st.sampled_from(["a cat", "a dog"]))
rows = st.fixed_dictionaries(
    {"file_name": file_names | texts, "text": captions}, optional={"label": captions, "style": captions}
)


@given(data=st.data())
@settings(max_examples=cases("pictures"), **QUIET)
def test_folders_of_pictures(folder, data):
    place = emptied(folder / "pictures")
    for name in data.draw(st.lists(file_names, max_size=4, unique=True)):
        (place / name).write_bytes(data.draw(st.sampled_from(PICTURES).flatmap(changed_bytes)))
    if data.draw(st.booleans()):
        lines = [json.dumps(row) for row in data.draw(st.lists(rows, max_size=3))]
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
        (place / "metadata.jsonl").write_bytes(data.draw(st.just(content) | changed_bytes(content)))
    for read in (lambda: check_picture_folder(place), lambda: read_images(place, 8)):
        with held_to(folder):
            read()
    for read in (check_captioned, lambda *a, **k: read_captioned(*a, 8, **k)):
        with held_to(folder):
            read(place, words=("cat",), kind="object")


class Evil:
    """What a pickle may be: an order to run something."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors"])
def test_a_pickle_is_never_run(folder, suffix):
    """Not by chance but on purpose: the file asks for a folder to be made, and none is."""
    path = folder / f"evil{suffix}"
    path.write_bytes(pickle.dumps({"a": Evil(folder / "made-by-a-pickle")}))
    with held_to(folder):
        import_edit(path, BACKBONE, CAT)
        pytest.fail("it was read")
    assert not (folder / "made-by-a-pickle").exists()


def test_the_watch_finds_what_it_looks_for(folder, tmp_path):
    """A file outside, an error of another kind and an empty one are told; so the tests above can fail."""
    from aizheimer.errors import DataError

    with pytest.raises(AssertionError, match="written outside"), held_to(folder):
        (tmp_path / "outside").write_text("x")
    with pytest.raises(AssertionError, match="without a word"), held_to(folder):
        raise DataError("  ")
    with pytest.raises(KeyError), held_to(folder):
        raise KeyError("x")
    with held_to(folder):
        (folder / "inside").write_text("x")
