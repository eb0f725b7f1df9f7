"""Records, and the batches made from them."""
