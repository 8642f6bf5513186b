"""The wireless link between UE and edge: its state, its fading, what it does to a tensor."""
