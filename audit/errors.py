"""What can go wrong with a log or with evidence: what was found, and what the operator does next."""

from pathlib import Path


class AuditError(Exception):
    """Everything this package raises on purpose."""

    def advice(self) -> str:
        """What to do next, for the person who sees the message."""
        return "Keep the files as they are, and compare the log's folder with a backup."


class EntryRefused(AuditError):
    """Bytes or fields that may not become an entry; `path` says where, `allowed` what would have been right."""

    def __init__(self, path: str, found: str, allowed: str) -> None:
        super().__init__(f"{path}: found {found}; allowed: {allowed}")
        self.path, self.found, self.allowed = path, found, allowed

    def advice(self) -> str:
        """What to do next."""
        return "Nothing was written to the log. Whoever made this entry must correct it and send it again."


class VerificationError(AuditError):
    """A proof, signature or hash that does not hold: in which step, what was expected and what was found."""

    def __init__(self, step: str, expected: str, found: str) -> None:
        super().__init__(f"{step}: expected {expected}, found {found}")
        self.step, self.expected, self.found = step, expected, found

    def advice(self) -> str:
        """What to do next."""
        return "Do not rely on this evidence. Keep it: with an older checkpoint it may prove who altered it."


class LogFork(AuditError):
    """The log would contradict something it has already signed. Fatal: the process must stop, not retry."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(
            f"the log no longer agrees with its own signed checkpoint: {what}: expected {expected}, found {found}"
        )
        self.expected, self.found = expected, found

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing more was signed. Stop the coordinator, keep the folder for examination, and restore the log from a"
            " backup that is at least as new as its checkpoint. Never continue from an older copy."
        )


class LogCorrupt(AuditError):
    """A file of the log is missing or does not hold what the signed checkpoint says it holds."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found

    def advice(self) -> str:
        """What to do next."""
        return (
            "The log was not opened and nothing was changed. Check the disk, then restore the log's folder from a"
            " backup that is at least as new as its checkpoint."
        )


class LogUnwritable(AuditError):
    """The disk refused a write. The log stops at its last durable checkpoint until it is opened again."""

    def __init__(self, directory: Path | str, reason: str) -> None:
        super().__init__(f"the log in {directory} cannot be written: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing was acknowledged. Free disk space or repair the disk, then start the coordinator again: it"
            " completes or drops what was in progress."
        )


class LogLocked(AuditError):
    """Another process has the log open for writing; two signers could fork it."""

    def __init__(self, directory: Path | str) -> None:
        super().__init__(f"the log in {directory} is already open in another process")

    def advice(self) -> str:
        """What to do next."""
        return "Use the running coordinator, or stop it first. Do not delete the lock file."


class ExportRefused(AuditError):
    """Evidence that cannot be made from what the caller gave."""

    def __init__(self, what: str, found: str, allowed: str) -> None:
        super().__init__(f"{what}: found {found}; allowed: {allowed}")

    def advice(self) -> str:
        """What to do next."""
        return "No file was written. Correct what is named above and export again."


class LogExists(AuditError):
    """A new log was asked for where there is one already."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"there is already a log where {origin} should be created")

    def advice(self) -> str:
        """What to do next."""
        return "Choose an empty folder. A log is never made anew in place of another: its history would be lost."


class LogSetBack(AuditError):
    """A witness remembers a longer log than this one, or another. Whose fault: whoever restored an older copy of it."""

    def __init__(self, witness: str, found: str) -> None:
        super().__init__(f"the log was set back: {witness} shows {found}")

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing is signed any more. Restore the newest copy of the coordinator's home, with its log; if there is "
            "none, begin a new log and keep this one, with what the witness shows, as evidence."
        )
