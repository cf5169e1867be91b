"""What a user of the command line can mend."""


class RolloutError(Exception):
    """A command that cannot be carried out, and why, in one sentence; the cluster is as it was, or as the sentence says."""
