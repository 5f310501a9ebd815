"""A person's own photos: cloak, purify, inspect, erase. Nothing else in `bench` imports this."""
