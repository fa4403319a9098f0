"""Teaches Schemathesis to send tus bodies: bytes, as they are. Loaded by schemathesis.toml."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def send_bytes(_context: schemathesis.SerializationContext, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()
