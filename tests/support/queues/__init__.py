"""Applications whose tasks run in workers of their own, which import them by name."""
