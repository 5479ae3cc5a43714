"""What a user sends when something fails: everything that helps, and no secret."""
