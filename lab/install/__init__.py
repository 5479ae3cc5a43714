"""Windows from the user's media, unattended: answer files, the first boot, and who watches it."""
