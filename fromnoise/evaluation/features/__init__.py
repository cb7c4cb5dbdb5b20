"""What sees pictures, to compare sets of them: networks and their features, of drawn pictures and of real ones."""
