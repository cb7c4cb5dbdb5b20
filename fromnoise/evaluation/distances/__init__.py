"""How far two sets of pictures are apart, by the features of each."""
