"""The commands of the photo tools, registered as `cloakbench.commands`."""
