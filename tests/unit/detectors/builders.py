"""Tiny but real judges: a ResNet that knows colours and a CLIP of random weights."""

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetForImageClassification

from tests.tiny import tiny_tokenizer

COLOURS = {"red": (0.8, -0.8, -0.8), "green": (-0.8, 0.8, -0.8), "blue": (-0.8, -0.8, 0.8)}
SIZE = 16


def flat_pictures(colours, *, size=SIZE, spread=0.1, seed=0):
    """Return (n, 3, size, size) pictures in [-1, 1] of the named colours, a little noisy."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([COLOURS[c] for c in colours])[:, :, None, None].expand(-1, -1, size, size)
    return (rows + spread * torch.randn(rows.shape, generator=generator)).clamp(-1, 1)


def save_colour_judge(folder: Path, *, names=tuple(COLOURS), **extra) -> Path:
    """Train a ResNet on colours for a second and write it as a judge; ``names`` renames its three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )  # fmt: skip
        model = ResNetForImageClassification(config).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        wanted = list(COLOURS) * 8
        for step in range(40):
            logits = model(pixel_values=flat_pictures(wanted, spread=0.3, seed=step)).logits
            loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(wanted)) % 3)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_size": SIZE, **extra}))
    return folder


def save_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP of random weights with the tiny tokenizer."""
    tokenizer = tiny_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **small, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {**small, "image_size": SIZE, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
