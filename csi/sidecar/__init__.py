"""The FUSE process of one volume: takes the descriptor, serves it, reports health, dies well."""
