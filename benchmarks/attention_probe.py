"""Time and peak memory of the attention probe, against plain attention and against the explicit softmax.

Four ways to run the same forward and backward pass, interleaved in one process so that they share its noise:

- plain: diffusers' AttnProcessor2_0, nothing is read: the floor.
- probe: ours, the target's columns are read inside the fused kernel.
- second call: the fused kernel again with the one-hot columns as values (what the probe would be without padding).
- explicit: diffusers' AttnProcessor, which writes the full matrix out, and the columns are taken from it.

Times are the fastest of all rounds (process time). Ratios are to "plain" of the same case and the same round: their
median and quartiles. Memory is the peak of what PyTorch's allocator holds during one pass above what it held before;
one layer is also measured with 1, 3, 8 and 16 target tokens, by which what the probe adds should grow.

Usage:
    python benchmarks/attention_probe.py [--rounds 7] [--tiny] [--out benchmarks/results/attention_probe.json]
    python benchmarks/attention_probe.py --page-only --page docs/performance.md
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from methods_table import write_between
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from aizheimer.modules.attention import attention_probe
from aizheimer.modules.columns import attend_with_columns, one_hot_columns

TARGET_TOKENS = 3
MORE_TOKENS = (1, 3, 8, 16)
BAR = 1.05
"""The most that a step may take of plain attention's."""
LAYERS = {
    "SD 1.5": (768, ((4096, 320, 8), (1024, 640, 8), (256, 1280, 8))),
    "SDXL": (2048, ((4096, 640, 10), (1024, 1280, 20))),
}
"""Width of the words that are read, and queries, width and heads of cross-attention layers."""
Way = Callable[[nn.Module, list[str], Tensor], AbstractContextManager[dict[str, Tensor]]]


@contextmanager
def plain(model: nn.Module, layers: list[str], columns: Tensor) -> Iterator[dict[str, Tensor]]:
    """Read nothing."""
    yield {}


@contextmanager
def probe(model: nn.Module, layers: list[str], columns: Tensor) -> Iterator[dict[str, Tensor]]:
    """Read with the package's probe."""
    read: dict[str, Tensor] = {}
    with attention_probe(model, layers, columns) as ours:
        handle = model.register_forward_hook(
            lambda *_: read.update({layer: attention.probabilities for layer, attention in ours.maps.items()})
        )
        try:
            yield read
        finally:
            handle.remove()


@contextmanager
def explicit(model: nn.Module, layers: list[str], columns: Tensor) -> Iterator[dict[str, Tensor]]:
    """Read from the full matrix of diffusers' explicit processor."""
    read: dict[str, Tensor] = {}
    place, count = int(columns[0].nonzero()[0]), int(columns[0].sum())

    def reading(layer: str, module: Attention) -> Callable[..., Tensor]:
        def scores(*args: object, **kwargs: object) -> Tensor:
            matrix = Attention.get_attention_scores(module, *args, **kwargs)
            # All rows mark the same tokens here, so a slice will do.
            read[layer] = matrix[..., place : place + count]
            return matrix

        return scores

    modules = {layer: model.get_submodule(layer) for layer in layers}
    try:
        for layer, module in modules.items():
            module.set_processor(AttnProcessor())
            module.get_attention_scores = reading(layer, module)
        yield read
    finally:
        for module in modules.values():
            del module.get_attention_scores
            module.set_processor(AttnProcessor2_0())


@dataclass(frozen=True)
class Case:
    """A network and its inputs; backward reaches the key and query projections of its cross-attention."""

    name: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    tokens: int
    target: int = TARGET_TOKENS

    @property
    def layers(self) -> list[str]:
        """Names of the watched modules."""
        return [name for name, _ in self.model.named_modules() if name.endswith("attn2")]

    @property
    def columns(self) -> Tensor:
        """The target's tokens in every prompt."""
        columns = torch.zeros(self.inputs[0].shape[0], self.tokens, dtype=torch.bool)
        columns[:, 4 : 4 + self.target] = True
        return columns

    def run(self, read: dict[str, Tensor]) -> None:
        """Make one forward and backward pass with the maps in the loss."""
        output = self.model(*self.inputs)
        loss = (output if isinstance(output, Tensor) else output.sample).square().mean()
        for probabilities in read.values():
            loss = loss + probabilities.square().mean()
        loss.backward()
        self.model.zero_grad()


class OneLayer(nn.Module):
    """A single cross-attention module as a network."""

    def __init__(self, width: int, *, heads: int, context: int) -> None:
        super().__init__()
        self.attn2 = Attention(width, cross_attention_dim=context, heads=heads, dim_head=width // heads)

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Attend."""
        return self.attn2(hidden, words)


def layer_case(family: str, queries: int, width: int, *, heads: int, context: int, target: int = TARGET_TOKENS) -> Case:
    """Return one cross-attention layer of a size, with random weights."""
    layer = OneLayer(width, heads=heads, context=context).requires_grad_(False)
    inputs = (torch.randn(1, queries, width), torch.randn(1, 77, context))
    name = f"{family} layer, {queries} queries x 77 tokens x {heads} heads x {width // heads}"
    return Case(name, layer, inputs, 77, target)


def cases(*, tiny: bool) -> list[Case]:
    """Return the embedded model's UNet (random weights) and layers of the sizes of Stable Diffusion 1.5 and XL."""
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=[2, 4, 6],
        cross_attention_dim=192,
        norm_num_groups=16,
    )
    words = torch.randn(8, 32, 192)
    found = [Case("embedded UNet, batch 8", unet, (torch.randn(8, 4, 16, 16), torch.arange(8) * 100, words), 32)]
    for family, (context, sizes) in LAYERS.items():
        for queries, width, heads in sizes:
            found.append(layer_case(family, queries // 64 if tiny else queries, width, heads=heads, context=context))
    for case in found:
        learn_keys(case)
    return found


def whole_case() -> Case:
    """Return a UNet of Stable Diffusion 1.5's size with random weights."""
    from full_size_step import build

    unet = build(tiny=False)
    inputs = (torch.randn(1, 4, 64, 64), torch.tensor([500]), torch.randn(1, 77, 768))
    case = Case("SD 1.5's UNet, batch 1", unet, inputs, 77)
    learn_keys(case)
    return case


def learn_keys(case: Case) -> None:
    """Let the queries' and the keys' projections of a case's cross-attention ask for gradients, and nothing else."""
    case.model.requires_grad_(False)
    for layer in case.layers:
        for part in ("to_q", "to_k"):
            case.model.get_submodule(f"{layer}.{part}").requires_grad_(True)


def memory_by_tokens(*, tiny: bool) -> dict[str, dict[str, int]]:
    """Return what a pass through one layer takes at its peak, plain and read, by the number of target tokens."""
    found = {}
    for target in MORE_TOKENS:
        case = layer_case("SD 1.5", 64 if tiny else 4096, 320, heads=8, context=768, target=target)
        learn_keys(case)
        peaks = {}
        for name, way in (("plain", plain), ("probe", probe)):
            with way(case.model, case.layers, case.columns) as read:
                case.run(read)  # what is made once is made
                peaks[name] = peak_bytes(lambda read=read, case=case: case.run(read))
        found[str(target)] = peaks | {"extra": peaks["probe"] - peaks["plain"]}
    return found


def seconds(action: Callable[[], None]) -> float:
    """Return the processor time of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def peak_bytes(action: Callable[[], None]) -> int:
    """Return the most that the allocator held during one call, above what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure_networks(case: Case, rounds: int) -> dict[str, dict[str, Any]]:
    """Measure a case in the three ways that work on a network."""
    ways: dict[str, Way] = {"plain": plain, "probe": probe, "explicit": explicit}
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            with way(case.model, case.layers, case.columns) as read:
                if turn == 0:  # Warm-up, and the memory once.
                    peaks[name] = peak_bytes(lambda: case.run(read))
                else:
                    times[name].append(seconds(lambda: case.run(read)))
    return summary(times, peaks)


def attend_plain(query: Tensor, key: Tensor, value: Tensor, one_hot: Tensor) -> list[Tensor]:
    """Attend and read nothing."""
    return [F.scaled_dot_product_attention(query, key, value)]


def attend_probe(query: Tensor, key: Tensor, value: Tensor, one_hot: Tensor) -> list[Tensor]:
    """Attend as the probe does."""
    return list(attend_with_columns(query, key, value=value, one_hot=one_hot))


def attend_twice(query: Tensor, key: Tensor, value: Tensor, one_hot: Tensor) -> list[Tensor]:
    """Attend, and once more with the one-hot columns as values."""
    columns = F.pad(one_hot, (0, value.shape[-1] - one_hot.shape[-1]))[:, None].expand_as(value)
    again = F.scaled_dot_product_attention(query, key, columns)
    return [F.scaled_dot_product_attention(query, key, value), again[..., : one_hot.shape[-1]]]


def attend_explicit(query: Tensor, key: Tensor, value: Tensor, one_hot: Tensor) -> list[Tensor]:
    """Write the matrix out."""
    matrix = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return [matrix @ value, matrix @ one_hot[:, None]]


def measure_kernel(rounds: int, *, queries: int, dim: int, tokens: int = 77) -> dict[str, dict[str, Any]]:
    """Measure attention alone, without projections, in all four ways."""
    query = torch.randn(1, 8, queries, dim, requires_grad=True)
    key, value = torch.randn(1, 8, tokens, dim, requires_grad=True), torch.randn(1, 8, tokens, dim)
    columns = (torch.arange(tokens) // TARGET_TOKENS == 1)[None]
    one_hot = one_hot_columns(columns)[0].float()
    ways = {"plain": attend_plain, "probe": attend_probe, "second call": attend_twice, "explicit": attend_explicit}
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int] = {}

    def run(name: str) -> None:
        loss = torch.stack([part.square().mean() for part in ways[name](query, key, value, one_hot)]).sum()
        torch.autograd.grad(loss, [query, key])

    for turn in range(rounds + 1):
        for name in ways:
            if turn == 0:
                peaks[name] = peak_bytes(lambda name=name: run(name))
            else:
                times[name].append(seconds(lambda name=name: run(name)))
    return summary(times, peaks)


def quartiles(values: list[float]) -> list[float]:
    """Return the quartiles; of a single value three times the same."""
    found = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(value, 3) for value in found]


def summary(times: dict[str, list[float]], peaks: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return milliseconds, the rounds' seconds, megabytes and the ratios to plain for every way."""
    least = peaks["plain"]
    return {
        name: {
            "milliseconds": round(min(values) * 1e3, 3),
            "seconds": [round(value, 6) for value in values],
            "time_ratio_quartiles": quartiles([own / floor for own, floor in zip(values, times["plain"], strict=True)]),
            "peak_megabytes": round(peaks[name] / 1e6, 3),
            "memory_ratio": round(peaks[name] / least, 3),
        }
        for name, values in times.items()
    }


def table(content: dict[str, Any]) -> str:
    """Return what was measured as Markdown: ratios to plain, and by the number of target tokens what the probe adds."""
    lines = ["| | plain, ms | way | time | quartiles | peak memory |", "| --- | ---: | --- | ---: | ---: | ---: |"]
    for name, ways in content["results"].items():
        plain_ms = f"{ways['plain']['milliseconds']:.1f}"
        for way, row in ways.items():
            if way == "plain":
                continue
            low, median, high = row["time_ratio_quartiles"]
            cells = [name, plain_ms, way, f"{median:.2f}", f"{low:.2f}-{high:.2f}"]
            lines.append(f"| {' | '.join(cells)} | {row['memory_ratio']:.2f} |")
            name = plain_ms = ""
    lines += ["", "| target tokens | plain, MB | the probe adds, MB |", "| ---: | ---: | ---: |"]
    for count, row in content["by_tokens"].items():
        lines.append(f"| {count} | {row['plain'] / 1e6:.2f} | {row['extra'] / 1e6:.2f} |")
    return "\n".join([*lines, "", *findings(content["results"])])


def findings(results: dict[str, Any]) -> list[str]:
    """Return what the rows say of the bar and of the explicit softmax, as a list in Markdown."""
    rows = {name: {way: row["time_ratio_quartiles"] for way, row in ways.items()} for name, ways in results.items()}
    missed = [f"{name} ({row['probe'][1]:.2f})" for name, row in rows.items() if row["probe"][1] > BAR]
    wide = sum(row["probe"][2] > BAR for row in rows.values())
    faster = [name for name, row in rows.items() if row["explicit"][1] < row["probe"][1]]
    explicit, ours = ([row[way][1] for row in rows.values()] for way in ("explicit", "probe"))
    return [
        f"- **The bar** is {BAR} of plain attention's time. The median is above it in {len(missed)} of {len(rows)} rows"
        f"{': ' if missed else ''}{'; '.join(missed)}. The upper quartile is above it in {wide}.",
        f"- **The explicit softmax is faster than the probe** in {len(faster)} of {len(rows)} rows on this CPU: "
        f"{min(explicit):.2f} to {max(explicit):.2f} of plain, the probe {min(ours):.2f} to {max(ours):.2f}.",
    ]


def main() -> None:
    """Measure everything, print a table and write the JSON file; or write the page from the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="layers of few queries, to try the script")
    parser.add_argument("--whole", type=int, default=0, help="rounds of a whole UNet of Stable Diffusion 1.5's size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", type=Path, help="write the table between its marks in this page")
    parser.add_argument("--page-only", action="store_true", help="measure nothing: write the page from what --out has")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "attention_probe.json")
    options = parser.parse_args()
    if options.page_only:
        if options.page is None:
            parser.error("--page-only: wanted --page as well")
        write_page(options.page, json.loads(options.out.read_text()))
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    results = {case.name: measure_networks(case, options.rounds) for case in cases(tiny=options.tiny)}
    if options.whole:
        case = whole_case()
        results[case.name] = measure_networks(case, options.whole)
    for queries, dim in [(64, 32)] if options.tiny else [(64, 32), (4096, 40)]:
        name = f"attention alone, {queries} queries x 77 tokens x 8 heads x {dim}"
        results[name] = measure_kernel(options.rounds, queries=queries, dim=dim)

    by_tokens = memory_by_tokens(tiny=options.tiny)
    for name, ways in results.items():
        print(name)
        for way, row in ways.items():
            print(
                f"  {way:12} {row['milliseconds']:9.2f} ms  x{row['time_ratio_quartiles'][1]:<6}"
                f" {row['peak_megabytes']:9.2f} MB  x{row['memory_ratio']}"
            )
    for count, row in by_tokens.items():
        print(f"{count:>3} target tokens: the probe adds {row['extra'] / 1e6:.2f} MB to {row['plain'] / 1e6:.2f} MB")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": options.threads,
        "rounds": options.rounds,
    }
    content = {"environment": environment, "results": results, "by_tokens": by_tokens}
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    if options.page:
        write_page(options.page, content)


def write_page(page: Path, content: dict[str, Any]) -> None:
    """Write the table and what it says between their marks in a page."""
    write_between(page, "probe", table(content))


if __name__ == "__main__":
    main()
