"""SPM: one-dimensional adapters, each prompt as far as it is about the concept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.additions import Gain, adapted_modules, put_adapters
from aizheimer.edits.hooks.calls import CallWatch
from aizheimer.modules.adapters import LowRank, grouped

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

GateKind = Literal["both", "embedding", "tokens", "none"]
"""What decides how much of an SPM a prompt gets; ``none`` gives every prompt all of it."""
Fidelity = Literal["paper", "repository"]
"""Whether a prompt gets gamma of an SPM, or gamma squared."""


def embedding_similarity(
    prompts: Float[Tensor, "batch tokens dim"], concepts: Float[Tensor, "concepts tokens dim"]
) -> Float[Tensor, "batch concepts"]:
    r"""Return :math:`\cos(E(p), E(c_i))` over all entries of two embeddings, not below 0."""
    flat = F.normalize(prompts.double().flatten(1), dim=1), F.normalize(concepts.double().flatten(1), dim=1)
    return (flat[0] @ flat[1].T).clamp(min=0)


def token_overlap(prompt: list[int], concept: list[int]) -> float:
    r"""Return :math:`|tok(p) \cap tok(c)| / |tok(c)|`, of sets of token ids without the special ones.

    Example:
        >>> token_overlap([5, 7, 9], [7, 8])
        0.5
    """
    wanted = set(concept)
    return len(wanted & set(prompt)) / len(wanted) if wanted else 0.0


@dataclass(frozen=True, eq=False)
class SPMHook:
    r"""Add low-rank adapters to the denoiser, times how much a prompt is about the concept (facilitated transport).

    .. math:: W' = W + s\,\gamma\, U D, \qquad \gamma = \max_i \max\Big(\cos(E(p), E(c_i)),
              \frac{|tok(p) \cap tok(c_i)|}{|tok(c_i)|}\Big)

    Linear in :math:`\gamma`: the published code multiplies both factors, which is :math:`\gamma^2`
    (``fidelity="repository"``), and mixes those of several SPMs. Here several are several edits on one pipeline; each
    adds its own :math:`\gamma U D`.

    A picture's unconditional row gets what its prompt gets, as in training. Where no text is known (embeddings were
    given, or the denoiser is called outside of a pipeline's loop) the cosine alone decides; with gate ``tokens``, which
    then knows nothing, :math:`\gamma = 1`.

    Args:
        adapters: By ``"<module>.down"`` and ``"<module>.up"``.
        words: :math:`c_i`, the concepts of this SPM: the largest counts.
        gate: What :math:`\gamma` is made of.
        fidelity: Which power of it; edits saved before there was a choice have the paper's.
    """

    name: ClassVar[str] = "spm"
    adapters: Mapping[str, Tensor]
    words: tuple[str, ...]
    gate: GateKind = "both"
    fidelity: Fidelity = "paper"

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The adapters."""
        return self.adapters

    @property
    def settings(self) -> Mapping[str, Any]:
        """The words and the gate, and its power if it is not the paper's."""
        power = {"fidelity": self.fidelity} if self.fidelity != "paper" else {}
        return {"words": list(self.words), "gate": self.gate} | power

    @property
    def gated(self) -> bool:
        """Whether a prompt decides how much of it acts, which no weights can express."""
        return self.gate != "none"

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these adapters and settings."""
        grouped(LowRank, tensors)
        if settings["gate"] not in get_args(GateKind):
            raise ValueError(f"gate {settings['gate']!r} is none of {', '.join(get_args(GateKind))}")
        if settings.get("fidelity", "paper") not in get_args(Fidelity):
            raise ValueError(f"fidelity {settings['fidelity']!r} is none of {', '.join(get_args(Fidelity))}")
        return cls(adapters=dict(tensors), **{**settings, "words": tuple(settings["words"])})

    def changes(self, unet: nn.Module) -> dict[str, Tensor]:
        r"""Return :math:`U D` in the shape of each module's weight, by its name: the whole hook if :math:`\gamma = 1`.

        Args:
            unet: The base, for the shapes.

        Raises:
            EditError: If the UNet lacks one of the modules.
        """
        found = grouped(LowRank, self.adapters)
        shapes = {name: module.get_parameter("weight").shape for name, module in adapted_modules(unet, found).items()}
        return {f"{name}.weight": found[name].weight.cpu().reshape(shape) for name, shape in shapes.items()}

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Put the adapters on, and measure every prompt before the denoiser sees it."""
        patches, gain = Patches(), Gain(strength)
        adapters = grouped(LowRank, self.adapters)
        put_adapters(patches, pipe.unet, adapters, gain=gain)
        if self.gated:
            _Transport(pipe, self, gain).install(patches)
        return patches


@dataclass(eq=False)
class _Transport:
    """Facilitated transport on one pipeline."""

    pipe: StableDiffusionPipeline
    hook: SPMHook
    gain: Gain
    watch: CallWatch = field(init=False)
    forward: Callable[..., Any] = field(init=False)
    concepts: Tensor = field(init=False)
    overlaps: Tensor | None = None

    def install(self, patches: Patches) -> None:
        self.watch = CallWatch(self.pipe, on_loop=self.begin)
        self.concepts = self.watch.encode_words(list(self.hook.words)).tokens
        self.watch.install(patches)
        self.forward = self.pipe.unet.forward
        patches.put(self.pipe.unet, "forward", self.predict)

    def begin(self) -> None:
        """Measure the words of a call's prompts; the text encoder may have been edited since the last one."""
        self.concepts = self.watch.encode_words(list(self.hook.words)).tokens
        self.overlaps = None
        if self.watch.prompts is not None:
            ids = self.ids(list(self.hook.words))
            shares = [max(token_overlap(prompt, own) for own in ids) for prompt in self.ids(self.watch.prompts)]
            self.overlaps = torch.tensor(shares).repeat_interleave(self.watch.images_per_prompt)

    def predict(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        """Run the denoiser with each row's own share of the adapters."""
        self.gain.rows = self.shares(encoder_hidden_states)
        try:
            return self.forward(sample, timestep, encoder_hidden_states, *args, **options)
        finally:
            self.gain.rows = None

    def shares(self, embeddings: Tensor) -> Tensor:
        """Return gamma (batch,), or its square, of the rows of one call of the denoiser."""
        rows = self.watch.conditional_rows(len(embeddings))
        prompts = embeddings[rows]
        overlaps = self.overlaps if self.watch.looping and len(prompts) == self.watch.rows else None
        gate = self.hook.gate
        if gate == "tokens":
            gamma = torch.ones(len(prompts)) if overlaps is None else overlaps
        else:
            gamma = embedding_similarity(prompts, self.concepts.to(prompts)).amax(dim=1).cpu()
            if gate == "both" and overlaps is not None:
                gamma = torch.maximum(gamma, overlaps.to(gamma))
        gamma = gamma**2 if self.hook.fidelity == "repository" else gamma
        return torch.cat([gamma, gamma]) if rows.start else gamma

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of texts, without special ones and cut as the text encoder reads them."""
        tokenizer = self.pipe.tokenizer
        spelt = cast("list[str]", self.pipe.maybe_convert_prompt(texts, tokenizer))
        found = tokenizer(spelt, add_special_tokens=False, verbose=False).input_ids
        return [own[: tokenizer.model_max_length - 2] for own in found]
