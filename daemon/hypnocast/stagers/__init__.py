"""What looks at pictures: packs and the engines that run them."""
