"""What users send, by name: the same in Locust's tables, the tally and the report."""

from enum import StrEnum


class Kind(StrEnum):
    """A protocol and a form of its request."""

    V1 = "V1 JSON"
    V2 = "V2 binary"
    IMAGE = "image"
    GRPC = "gRPC"
