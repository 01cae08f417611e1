// Empty: Cargo.lock is what counts.
