//! evaluate, predict, similar, draw, export and import, through the program itself.

mod bad_files;
mod compare;
mod evaluate;
mod exchange;
mod other_programs;
mod pictures;
mod support;
