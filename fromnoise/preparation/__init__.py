"""Raw pictures to shards of a prepared data set."""
