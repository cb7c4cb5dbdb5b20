"""Where pictures and what is said of them come from, portion by portion."""
