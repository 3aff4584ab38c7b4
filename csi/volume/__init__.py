"""What was asked for: PersistentVolume attributes parsed once, at the boundary, into one frozen VolumeSpec."""
