"""Speed of decoding: what one round gave, what all of them came to, and the document of that."""
