"""Learning: agents that move the split point, trained with RLlib and judged exactly."""
