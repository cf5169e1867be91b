"""What several commands raise."""


class ConfigError(ValueError):
    """The command or its configuration cannot be run as it is; the message names the field."""
