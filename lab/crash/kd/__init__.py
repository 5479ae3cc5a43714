"""The Windows kernel debugger's serial line, listened to from the host."""
