"""Where pictures come from: folders, shards, hubs; decoding and fingerprints."""
