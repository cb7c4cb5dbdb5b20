"""What HTML pages are made of: their style and tables, and charts that stand inside them. It knows no model."""
