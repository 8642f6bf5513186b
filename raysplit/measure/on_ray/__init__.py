"""Measuring on Ray: the session, the actors, the scheduler that survives their deaths."""
