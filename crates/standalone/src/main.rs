//! koine
fn main() {}
