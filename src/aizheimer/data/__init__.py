"""From a concept's words to cached tensors: prompts, embeddings, images, latents and teacher trajectories."""
