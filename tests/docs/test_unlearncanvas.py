"""What the page on suites says of UnlearnCanvas's own judges: the code that makes their folders, run on a small ViT."""

import math

import pytest
import torch
import torch.nn.functional as F

from aizheimer.concepts.world import World
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.evaluation.suite_file import load_suite
from tests.docs.snippets import PYTHON

WIDTH, LAYERS, HEADS, CLASSES = 32, 2, 4, ("Van_Gogh", "Winter", "Seed_Images")
SHAPES = {
    "cls_token": (1, 1, WIDTH), "pos_embed": (1, 197, WIDTH), "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
    "patch_embed.proj.bias": (WIDTH,), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
    "head.weight": (len(CLASSES), WIDTH), "head.bias": (len(CLASSES),),
}  # fmt: skip
BLOCK = {
    "norm1": (WIDTH,), "norm2": (WIDTH,), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH),
    "mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH),
}  # fmt: skip


def weights():
    """Tensors by the names of timm's VisionTransformer, drawn at random."""
    shapes = dict(SHAPES)
    for i in range(LAYERS):
        for name, shape in BLOCK.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def logits(state, pixels):
    """What timm's VisionTransformer computes, written out: pre-norm blocks, the class token's last row to the head."""

    def linear(name, x):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    rows = F.conv2d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    rows = rows.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(pixels), -1, -1), rows], dim=1) + state["pos_embed"]
    for i in range(LAYERS):
        split = linear(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", x))
        split = split.reshape(len(x), -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        scores = split[0] @ split[1].transpose(-2, -1) / math.sqrt(WIDTH // HEADS)
        mixed = (scores.softmax(-1) @ split[2]).transpose(1, 2).reshape(x.shape)
        x = x + linear(f"blocks.{i}.attn.proj", mixed)
        x = x + linear(f"blocks.{i}.mlp.fc2", F.gelu(linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", x))))
    return linear("head", norm("norm", x)[:, 0])


@pytest.fixture
def page():
    """The page's code: what it defines, and what is then to be run."""
    (block,) = [block for block in PYTHON if "def judge_folder" in block.body]
    defined, run = block.body.split("\n# run\n")
    names = {}
    exec(compile(defined, str(block), "exec"), names)
    return names, compile(run, str(block), "exec")


def test_the_world_names_both_judges_and_the_suite_asks_for_what_it_knows(page, tmp_path, monkeypatch):
    names, run = page
    made = {}
    monkeypatch.chdir(tmp_path)
    exec(run, names | {"judge_folder": lambda checkpoint, folder, classes: made.update({folder: len(classes)})})
    assert made == {"judges/style": 51, "judges/object": 20}
    (tmp_path / "pipeline").mkdir()
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    world = World.load(tmp_path / "pipeline")
    assert world.judge_folder("style") == tmp_path / "judges/style"
    assert world.judge_folder("object") == tmp_path / "judges/object"
    assert (world.kind_of("Van Gogh"), world.kind_of("Cats")) == ("style", "object")
    assert len(world.styles) == 50


def test_the_folder_says_what_the_checkpoint_says(page, tmp_path):
    state = weights()
    torch.save({"model_state_dict": state}, tmp_path / "style50.pth")
    names, _ = page
    names["judge_folder"](
        tmp_path / "style50.pth", tmp_path / "style", CLASSES, layers=LAYERS, width=WIDTH, heads=HEADS
    )  # fmt: skip
    judge = ImageJudge.load(tmp_path / "style")
    pixels = 2 * torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) - 1
    assert judge.classes == CLASSES
    assert torch.equal(judge.prepare(pixels), pixels), "as (x - 0.5) / 0.5 and at its own size"
    with torch.no_grad():
        found = judge.model(pixel_values=judge.prepare(pixels)).logits
    assert found.std() > 0.1
    assert torch.allclose(found, logits(state, pixels), atol=1e-4)


def test_classes_are_in_the_order_of_its_heads():
    """The heads' order is that of the names in UnlearnCanvas's const.py: alphabetical, Seed_Images among the styles."""
    suite = load_suite("canvas-unlearncanvas").suite
    assert len(suite.styles) == 51
    assert list(suite.styles) == sorted(suite.styles)
    assert suite.styles[38] == "Seed_Images"
    assert len(suite.objects) == 20
    assert list(suite.objects) == sorted(suite.objects)
