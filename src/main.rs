//! The program; it comes with the command line.

fn main() {}
