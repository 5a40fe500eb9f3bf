//! Images from folders, archives and shards: read right, or refused with a reason.

mod archives;
mod checks;
mod decoding;
mod folders;
mod prepared;
mod support;
