//! The program as a user or a script sees it: exit codes, one-line messages, files.

mod gpus;
mod help;
mod images;
mod interruption;
mod mistakes;
mod preparing;
mod pytorch;
mod reproducible;
mod run_folder;
mod step;
mod support;
