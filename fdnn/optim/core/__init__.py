"""What every optimizer is made of: parts, their chain, one formula for all leaves."""
