"""What a container or a person types: the `ossfuse` command."""
