"""The ground that every room stands on: configuration, errors, files, progress, statistics."""
