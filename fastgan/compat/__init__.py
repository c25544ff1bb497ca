"""Drop-ins that share a name with something of ours but not its signature, by the library they come from."""
