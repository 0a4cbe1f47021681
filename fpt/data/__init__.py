"""From text to padded batches of token ids."""
