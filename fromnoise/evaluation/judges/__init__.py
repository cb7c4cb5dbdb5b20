"""Who says what a picture shows: by rules from its pixels, or by a network that comes with fromnoise."""
