"""What can be asked, a module a kind of thing."""
