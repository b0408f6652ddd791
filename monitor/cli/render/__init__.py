"""What commands print for people: tables and the texts around them."""
