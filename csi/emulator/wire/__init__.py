"""What OSS says on the wire: requests, answers, errors, XML, conditions; and moving bodies in and out."""
