//! Images from folders, archives and shards: read right, or refused with a reason.

mod archives;
mod checks;
mod damaged;
mod decoding;
mod folders;
mod prepared;
mod statistics;
mod support;
