"""Train the tokenizer and a small CLIPModel of the emoji world, contrastively.

The text tower learns words before the UNet sees them (words learned together with the
UNet steer nothing for an hour), and the image tower stays as the CLIPScore model.

Loss: InfoNCE with several positives a row (every picture that the caption truly describes:
its tags are a subset of the picture's, its style the same or unsaid), both directions,
plus a text-only naming loss on the end-of-text token and on the concept's last token, so
that the concept's own tokens carry it and not only the end of the sentence.

Example:
    python models/emoji/train_text_encoder.py --steps 1500
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from emoji_data import (
    STYLELESS,
    STYLES,
    TEMPLATES,
    ConceptRow,
    Dataset,
    augment,
    plain,
    read_concepts,
    synonyms,
    tag_counts,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from training import Log, cosine, load_state, save_atomic, save_sheet
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer

MAX_TOKENS = 32
SHEET_WORDS = (
    *("Santa Claus", "cat in noto style", "kitten in flat style", "an emoji of pizza", "twemoji rocket"),
    *("sailing boat", "fluent style drawing of a flower", "angry", "christmas", "police officer in blob style"),
)
VOCABULARY = 2600


def corpus(concepts: list[ConceptRow]) -> list[str]:
    """Every text whose words the tokenizer should know."""
    words = [row.label.lower() for row in concepts for _ in range(3)]
    words += [tag.lower() for row in concepts for tag in row.tags]
    words += [t.format(label=" ", style=s) for t in (*TEMPLATES, *STYLELESS) for s in STYLES for _ in range(4)]
    return words


def train_tokenizer(concepts: list[ConceptRow]) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's file format, padded with end-of-text as Stable Diffusion 1 is."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(concepts), trainer)
    model = json.loads(bpe.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    tokens += [c + "</w>" for c in sorted(alphabet) if c + "</w>" not in model["vocab"]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return CLIPTokenizer(
        vocab={t: i for i, t in enumerate(dict.fromkeys(tokens))}, merges=merges, model_max_length=MAX_TOKENS
    )


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A new two-tower model: text 192 wide, image 128 wide with patches of 8."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "max_position_embeddings": MAX_TOKENS,
        "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "hidden_act": "gelu",
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def image_processor() -> CLIPImageProcessorPil:
    """64 px, scaled to [-1, 1]: what every picture of this world uses."""
    size = {"height": 64, "width": 64}
    return CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    )


class CaptionSampler:
    """Draws captions with what they claim: words (as a set of tags or one label) and style."""

    def __init__(self, concepts: list[ConceptRow], seed: int) -> None:
        self.concepts, self.rng, self.counts = concepts, random.Random(seed), tag_counts(concepts)
        self.tags = [{t.lower() for t in row.tags} for row in concepts]

    def draw(self, concept: int, style: int) -> tuple[str, int, set[str] | None, int | None]:
        """Return caption, end of its concept words, its tags (None for a label), its style or None."""
        row = self.concepts[concept]
        words = synonyms(row, self.counts, self.rng) if self.rng.random() < 0.4 else None
        named = row.label if words is None or words == [row.label] else " ".join(words)
        template = self.rng.choice(STYLELESS if self.rng.random() < 0.2 else TEMPLATES)
        head = template[: template.index("{label}")].format(style=STYLES[style])
        tags = None if words is None or words == [row.label] else {w.lower() for w in words}
        styled = style if "{style}" in template else None
        return template.format(label=named, style=STYLES[style]), len(head) + len(named), tags, styled

    def positives(self, drawn: list, concepts: list[int], styles: list[int]) -> torch.Tensor:
        """Boolean (captions, images): does the caption describe the picture?"""
        table = torch.zeros(len(drawn), len(concepts), dtype=torch.bool)
        for i, (_, _, tags, style) in enumerate(drawn):
            for j, (c, s) in enumerate(zip(concepts, styles, strict=True)):
                named = c == concepts[i] if tags is None else tags <= self.tags[c]
                table[i, j] = named and style in (None, s)
        return table


def contrastive(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Cross-entropy towards the uniform distribution over each row's positives, both ways."""
    target = positives.float()
    rows = -(F.log_softmax(logits, 1) * target).sum(1) / target.sum(1)
    columns = -(F.log_softmax(logits, 0) * target).sum(0) / target.sum(0).clamp(min=1)
    return (rows.mean() + columns.mean()) / 2


def tokens_with_ends(tokenizer: CLIPTokenizer, texts: list[str], ends: list[int]) -> tuple[dict, torch.Tensor]:
    """Encode, and find for each text the token in which character ``end`` - 1 lies."""
    batch = tokenizer(texts, padding=True, truncation=True, return_offsets_mapping=True, return_tensors="pt")
    spans = batch.pop("offset_mapping")
    ends_t = torch.tensor(ends)[:, None]
    inside = (spans[..., 0] < ends_t) & (spans[..., 1] >= ends_t)
    return batch, inside.float().argmax(1)


class Trainer:
    """The two towers, the throw-away naming heads and their optimiser."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.data = Dataset.load(args.out)
        self.images = self.data.tensor()
        self.tokenizer = train_tokenizer(self.data.concepts)
        self.clip = build_clip(self.tokenizer)
        self.heads = nn.ModuleDict(
            {"concept": nn.Linear(192, len(self.data.concepts)), "style": nn.Linear(192, len(STYLES))}
        )
        parameters = [*self.clip.parameters(), *self.heads.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, args.lr, betas=(0.9, 0.98), weight_decay=0.05)
        self.generator = torch.Generator().manual_seed(args.seed)

    def loss(self, sampler: CaptionSampler) -> dict[str, torch.Tensor]:
        """One batch of pictures with a caption each."""
        order = torch.randperm(len(self.data.concepts), generator=self.generator)[: self.args.batch]
        concepts = order.tolist()
        styles = torch.randint(0, len(STYLES), (len(concepts),), generator=self.generator)
        drawn = [sampler.draw(c, s) for c, s in zip(concepts, styles.tolist(), strict=True)]
        batch, ends = tokens_with_ends(self.tokenizer, [d[0] for d in drawn], [d[1] for d in drawn])
        pixels = augment(self.images[order, styles], self.generator, shift=0.08, scale=0.15, degrees=12)
        out = self.clip(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], pixel_values=pixels)
        hidden = out.text_model_output.last_hidden_state
        rows = torch.arange(len(concepts))
        eot = (batch["input_ids"] == self.tokenizer.eos_token_id).int().argmax(1)
        naming = (
            F.cross_entropy(self.heads["concept"](hidden[rows, eot]), order)
            + F.cross_entropy(self.heads["concept"](hidden[rows, ends]), order)
        ) / 2
        styled = torch.tensor([d[3] is not None for d in drawn])
        style = F.cross_entropy(self.heads["style"](hidden[rows, eot])[styled], styles[styled])
        positives = sampler.positives(drawn, concepts, styles.tolist())
        return {
            "contrastive": contrastive(out.logits_per_text, positives),
            "naming": 0.3 * naming,
            "style": 0.2 * style,
            "hit": positives[rows, out.logits_per_text.argmax(1)].float().mean(),
        }

    def save(self) -> None:
        """Write the folders ``clip``, ``text_encoder`` and ``tokenizer``."""
        out = self.args.out
        self.clip.eval().save_pretrained(out / "clip")
        self.tokenizer.save_pretrained(out / "clip")
        image_processor().save_pretrained(out / "clip")
        text = CLIPTextModel(self.clip.config.text_config)
        source = self.clip.text_model.state_dict()
        missing, unexpected = text.load_state_dict(
            source
            if "embeddings.token_embedding.weight" in text.state_dict()
            else {f"text_model.{k}": v for k, v in source.items()},
            strict=False,
        )
        if [k for k in (*missing, *unexpected) if "position_ids" not in k]:
            raise RuntimeError(f"text tower does not fit CLIPTextModel: {missing} {unexpected}")
        text.eval().save_pretrained(out / "text_encoder")
        self.tokenizer.save_pretrained(out / "tokenizer")

    @torch.no_grad()
    def sheet(self) -> None:
        """Write what the model finds for some words: a row each, the best eight of all drawings."""
        self.clip.eval()
        pictures = plain(self.images.flatten(0, 1))
        found = torch.cat([self.clip.get_image_features(pixel_values=p).pooler_output for p in pictures.split(107)])
        batch = self.tokenizer(list(SHEET_WORDS), padding=True, return_tensors="pt")
        words = self.clip.get_text_features(**batch).pooler_output
        best = (F.normalize(words, dim=-1) @ F.normalize(found, dim=-1).T).topk(8).indices
        save_sheet(pictures[best.flatten()], self.args.out / "text-sheet.png", 8, zoom=1)


def main() -> None:
    """Train, or go on from the last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    trainer = Trainer(args)
    checkpoint, step, elapsed = args.out / "text.pt", 0, 0.0
    if state := load_state(checkpoint):
        trainer.clip.load_state_dict(state["clip"])
        trainer.heads.load_state_dict(state["heads"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        trainer.generator.set_state(state["generator"])
        step, elapsed = state["step"], state["elapsed"]
    log, totals = Log(args.out / "text.jsonl", elapsed), {}
    sampler = CaptionSampler(read_concepts(), args.seed + step)
    while step < args.steps:
        for group in trainer.optimiser.param_groups:
            group["lr"] = args.lr * cosine(step, args.steps)
        parts = trainer.loss(sampler)
        trainer.optimiser.zero_grad()
        (parts["contrastive"] + parts["naming"] + parts["style"]).backward()
        torch.nn.utils.clip_grad_norm_(trainer.clip.parameters(), 1.0)
        trainer.optimiser.step()
        step += 1
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value.item() / 50
        if step % 50 == 0:
            log.write(step=step, **totals)
            totals = {}
        if step % 250 == 0 or step == args.steps:
            save_atomic(
                {
                    "clip": trainer.clip.state_dict(),
                    "heads": trainer.heads.state_dict(),
                    "optimiser": trainer.optimiser.state_dict(),
                    "generator": trainer.generator.get_state(),
                    "step": step,
                    "elapsed": log.elapsed,
                },
                checkpoint,
            )
    trainer.save()
    trainer.sheet()


if __name__ == "__main__":
    main()
