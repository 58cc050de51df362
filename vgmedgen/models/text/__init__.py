"""From a caption to the visual prior's two vectors: tokenizer, encoder, mapper."""
