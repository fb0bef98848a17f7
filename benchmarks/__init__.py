"""Speed against peers; not part of the distribution."""
