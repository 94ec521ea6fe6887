"""From rows in order to the tensors of a batch: padded, or packed into windows."""
