"""The transport: HTTP signalling, WebRTC sessions, jitter buffers, fan-out. Knows no pixels."""
