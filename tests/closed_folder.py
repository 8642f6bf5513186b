"""A folder that may not be entered, also for root."""

import os


def forbid(monkeypatch, folder):
    """Let the system refuse whatever lies in the folder, and entering it."""
    stat, access = os.stat, os.access

    def refusing_stat(path, **options):
        if folder.as_posix() + "/" in os.fspath(path):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)

    def refusing_access(path, mode, **options):
        return access(path, mode, **options) and not (str(path) == str(folder) and mode & os.X_OK)

    monkeypatch.setattr(os, "stat", refusing_stat)
    monkeypatch.setattr(os, "access", refusing_access)
