"""Names, inodes, handles, directories, attributes, and what each mode promises. No FUSE, no HTTP."""
