"""What real OSS has not: faults on request, counters, seeding, the admin API."""
