"""What extends RLlib: networks, the lean runner and learner, A2C, replay, repaired learners."""
