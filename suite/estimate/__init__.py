"""What a plan will cost before anything is spent: work as cells state it, rates as this machine has them."""
