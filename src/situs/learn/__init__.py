"""Learning: the networks in torch, their training, and their export to a bundle."""
