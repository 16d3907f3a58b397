"""What benchmarks share: measurements that are kept as they are made; scans as offices make them, and their figures."""
