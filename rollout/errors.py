"""What a user of the command line can mend."""


class RolloutError(Exception):
    """A command that cannot be carried out, with the reason in one sentence; the cluster is as it was, or as the sentence says."""
