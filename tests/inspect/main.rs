//! evaluate, predict, similar, draw, export and import, through the program itself.

mod bad_files;
mod compare;
mod evaluate;
mod exchange;
mod pictures;
mod support;
