"""Names for tensors with their axes, checked with beartype in the tests.

Axis words: batch heads queries tokens channels height width dim.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "batch 3 image_height image_width"]
"""Pixels in [-1, 1]."""

Latents = Float[Tensor, "batch channels height width"]
"""What the denoiser sees: scaled latents, noise, or its prediction."""

TextEmbeddings = Float[Tensor, "batch tokens dim"]
"""The last hidden state of the text encoder, as the denoiser's cross-attention reads it."""

TokenIds = Int[Tensor, "batch tokens"]
"""Padded and truncated token ids."""

WordIds = Int[Tensor, "batch tokens *encoders"]
"""Token ids as text encoders read them: `TokenIds` of one, of several one column of the last axis each."""

TokenColumns = Bool[Tensor, "batch tokens"]
"""True at the tokens that are looked at."""

AttentionProbs = Float[Tensor, "batch heads queries tokens"]
"""Cross-attention probabilities; over all tokens of the prompt they sum to 1."""

WordVectors = Float[Tensor, "words dim"]
"""One vector for each word or phrase."""

AlphasCumprod = Float[Tensor, " steps"]
"""How much of the signal's variance is left at each training timestep."""

Timesteps = Int[Tensor, "*batch"]
"""Training timesteps, 0 (clean) to 999 (noise): one for each item, or a single one for all."""
