"""From a page to its picture: conditioning, recipes, rendering."""
